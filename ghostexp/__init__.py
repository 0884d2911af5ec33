"""ghostexp: study, reproduce and extend GhostNet (arXiv 1911.11907)."""
