"""What is remembered: SQL for what must survive, Redis for what may be forgotten.

Every service reads and writes through this package; nobody else knows a table or a key. Work is rows in `stage_runs`,
done by `runner`; facts leave through `outbox`.
"""
