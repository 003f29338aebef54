#!/usr/bin/python3 -S
# SPDX-License-Identifier: MIT OR Apache-2.0
# echo.py DEVICE: sends back each message that arrives on channel 8.
import fcntl, os, select, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(fd, 0x4008b900, struct.pack("II", 8, 0))  # MK_IPI_BIND
poll, back = select.poll(), []
while True:
    poll.register(fd, (select.POLLIN if len(back) < 16 else 0) | (select.POLLOUT if back else 0))
    for _, ready in poll.poll():
        try:
            if ready & select.POLLIN:
                back.append(os.read(fd, 4096))
            elif ready & select.POLLOUT:
                os.write(fd, back[0])
                back.pop(0)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError) as error:
            print("echo:", error)
