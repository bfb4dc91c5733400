"""How the gateway can be seen from outside: metrics, alerts, task logs, status, and a bundle for whoever has to help.

It reads what the other parts count and never changes what they do.
"""
