"""Local preparation (clause 8.4): raw samples become feature rows by unit and type conversion, cleaning and resampling.

Pure functions and one state machine for each end (`gateway.pipeline.end`): no clock, no file, no randomness. The same samples in the
same order give the same rows, however they are cut into batches, so the feature layer can be made again from the raw layer.
"""
