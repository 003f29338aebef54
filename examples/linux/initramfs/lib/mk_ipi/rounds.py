#!/usr/bin/python3 -S
# SPDX-License-Identifier: MIT OR Apache-2.0
# rounds.py DEVICE COUNT: sends COUNT messages on channel 8, and checks that each of them comes back.
import fcntl, os, select, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(fd, 0x4008b900, struct.pack("II", 8, 0))  # MK_IPI_BIND
poll, sent, back, count = select.poll(), 0, 0, int(sys.argv[2])
while back < count:
    poll.register(fd, select.POLLIN | (select.POLLOUT if sent < min(count, back + 16) else 0))
    for _, ready in poll.poll():
        if ready & select.POLLIN:
            assert os.read(fd, 4096) == b"message %d" % back
            back += 1
        elif ready & select.POLLOUT:
            os.write(fd, b"message %d" % sent)
            sent += 1
print(back, "messages were sent and came back")
