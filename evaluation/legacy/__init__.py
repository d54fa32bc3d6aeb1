"""The legacy service, ported with its faults: only for comparison, never to be served."""
