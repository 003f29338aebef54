#!/usr/bin/python3 -S
# SPDX-License-Identifier: MIT OR Apache-2.0
# Gives back each message of channel 8.
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(fd, 0x4008b900, struct.pack("II", 8, 0))
while True:
    os.write(fd, os.read(fd, 4096))
