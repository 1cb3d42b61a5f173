"""What is said between the parts of Paddock: subjects, events, phases, methods, errors and ids.

Pure data and pure functions. Every process and the daemon may import it; it imports nothing of ours and does no I/O.
"""
