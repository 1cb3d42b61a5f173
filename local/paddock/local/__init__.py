"""Everything on one machine: `paddock up`, the demo, and what tests start."""
