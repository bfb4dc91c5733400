"""Who someone is and that a message is theirs: keys, certificates, ciphers, TLS in two suites, sealed envelopes.

It never knows what a model, a task or a machine is.
"""
