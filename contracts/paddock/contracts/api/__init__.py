"""What people ask the gateway: one module for each noun, and `methods` with the table of all of them.

JSON-RPC 2.0 over `POST /rpc` and `GET /ws`, camelCase members, a bearer access token. Needs the extra `api`
(pydantic); nothing that runs in a machine imports this.
"""
