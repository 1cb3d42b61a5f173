"""The people's door: JSON-RPC 2.0 over HTTP and WebSocket, for whoever has an access token.

It writes what people ask into the store, asks machines over the bus, and shows what happens. It mints no credential and
works on no stage.
"""
