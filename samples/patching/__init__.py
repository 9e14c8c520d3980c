"""One workflow through four releases: the code changes while runs are open.

v1_initial -> v2_patched -> v3_deprecated -> v4_complete. Each module is what the file looked like in one release; a worker loads one of them. In use
one deploys v2 while runs of v1 are open, v3 when none of them is, v4 when none of v2 is; `durable verify samples.patching.v4_complete` says
beforehand whether it is safe.
"""
