"""This system beside Kubo, iroh and libtorrent, on the same file and in the same run: `make bench-peers`."""
