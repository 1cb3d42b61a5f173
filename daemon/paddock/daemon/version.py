"""The daemon's own version, said in `report.ready` and `daemon.getVersion`.

Written here and not read from the installed distribution: that look-up costs a tenth of the time to ready.
"""

VERSION = "0.1.0"
