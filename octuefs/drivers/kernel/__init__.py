"""The native Linux driver: the kernel's FUSE protocol, spoken on /dev/fuse and over io_uring."""
