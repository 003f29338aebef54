# SPDX-License-Identifier: MIT OR Apache-2.0
"""A peer that was written from SPEC.md alone, in a language in which there is no code of mk-ipi: python3 peer.py.

It reads commands from standard input, and shows how another implementation can be tested (mk-ipi-conformance/README.md). The
comments name the clauses that the code follows. The test and this program run in turn, and exchange commands and answers over
pipes. So their stores are ordered without the fences of the specification. A kernel needs these fences.
"""

import mmap
import sys

LAP_MASK, TAG_SET, TAG_FURTHER = (1 << 30) - 1, 1 << 30, 1 << 31  # N-6
FIRST, BEGIN, CLEAN, HELLO_SET = 1 << 48, 2 << 48, 3 << 48, 1 << 50  # N-5
NATIVE_MAGIC = int.from_bytes(b"MKIPINAT", "little")  # N-1
HEARTBEAT, LIFE, ARMED, BELL = 8, 9, 16, 17  # N-4: words of a region
CREDIT, ANSWER, BASE, HANDED, BREACH, DOUBTS, DOUBT = range(7)  # N-4: words of a control line
HELLO, _STOP, WANT, ATTACHED = range(4)  # N-5: words of a lane's header
BAD_TAG, BAD_LENGTH, BAD_HELLO = 1, 2, 3  # N-14


def pages(size):
    """N-2: `size`, rounded up to whole pages"""
    return (size + 4095) & ~4095


def lines_of(size):
    """N-6: how many lines a message of this size takes"""
    return 1 if size <= 48 else 1 + (size - 48 + 55) // 56


def to_words(data):
    data = data + bytes(-len(data) % 8)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


def to_bytes(words, size):
    return b"".join(word.to_bytes(8, "little") for word in words)[:size]


class Side:
    """One of the two kernels."""

    def __init__(self, fields):
        self.id, self.life, self.cpu, self.region, self.region_len = fields


class Setup:
    """The arguments of the command `init`."""

    def __init__(self, words):
        path, numbers = words[0], [int(word) for word in words[1:]]
        self.phys, self.len, self.layout, self.exclusive, _slots, self.vector = numbers[:6]
        self.me, self.other = Side(numbers[6:11]), Side(numbers[11:16])
        with open(path, "r+b") as file:
            self.memory = memoryview(mmap.mmap(file.fileno(), self.len)).cast("Q")

    def word(self, phys):
        """The index in `memory` of the word at a physical address."""
        return (phys - self.phys) // 8

    def ring(self, vector=None):
        print("ring", self.other.cpu, vector or self.vector)


class Slots:
    """RFC v2: chapters L, S, R, X."""

    def __init__(self, setup):
        self.setup, self.rang = setup, False

    def slot(self, side):
        return self.setup.word(side.region) + side.cpu * 34  # L-2, L-5

    def send(self, kind, data):
        setup, memory, at = self.setup, self.setup.memory, self.slot(self.setup.other)
        if not 1 <= len(data) <= 256:  # S-1
            return -22
        if setup.exclusive and memory[at + 1]:
            return 1
        memory[at + 1] = 0x4D4B << 48 | setup.me.id << 32 | setup.me.life if setup.exclusive else 0
        memory[at] = setup.me.cpu | kind << 32  # S-3
        words = to_words(data)
        for word in range(32):  # S-4
            memory[at + 2 + word] = words[word] if word < len(words) else 0
        memory[at + 1] = len(data)  # O-2
        setup.ring()
        return 0

    def receive(self):
        setup, memory, at = self.setup, self.setup.memory, self.slot(self.setup.me)
        if not self.rang and not setup.exclusive:  # H-16
            return 0
        self.rang = False
        size = memory[at + 1]
        if not 1 <= size <= 256:
            return 0
        head, data = memory[at], to_bytes(memory[at + 2 : at + 34], size)
        if setup.exclusive:
            memory[at + 1] = 0
        return head & 0xFFFFFFFF, head >> 32, data

    def interrupt(self):
        self.rang = True

    def fini(self):
        pass


class Lane:
    """N-1, N-2: the lane of kernel `id` in a region."""

    def __init__(self, setup, side, id):
        self.memory, self.region = setup.memory, setup.word(side.region)
        magic, version, total, most = self.memory[self.region : self.region + 4]
        lanes, self.count, self.most = version >> 32, most & 0xFFFFFFFF, most >> 32
        control, size = pages(256 + 128 * lanes), pages(256 + 64 * self.count)
        good = magic == NATIVE_MAGIC and version & 0xFFFF == 2 and id < lanes <= 256
        good = good and 8 <= self.count <= 4096 and self.count & (self.count - 1) == 0
        if not good or not total == control + lanes * size <= side.region_len:
            raise ValueError("no region of this version")
        self.control = self.region + 32 + id * 16
        self.header = self.region + (control + id * size) // 8
        self.lines = self.header + 32

    def line(self, position):
        """N-8: the index in `memory` of the line at a position"""
        return self.lines + position % self.count * 8

    def lap(self, position):
        return position // self.count & LAP_MASK


class Native:
    """Chapter N."""

    def __init__(self, setup):
        self.setup, self.memory = setup, setup.memory
        self.out, self.into = Lane(setup, setup.other, setup.me.id), Lane(setup, setup.me, setup.other.id)
        self.memory[self.out.header + ATTACHED] = setup.me.life  # N-17: generation 0, because no directory was followed
        self.begin_receiving()
        self.say_hello()

    # -- the doorbell

    def ring(self):
        """N-12: rings the other side"""
        bell = self.memory[self.out.region + BELL]
        vector, cpu = bell >> 48 & 0xFF, bell & (1 << 48) - 1
        good = bell >> 63 and cpu == self.setup.other.cpu and 0x20 <= vector <= 0xFE
        self.setup.ring(vector if good else None)

    def ring_if_armed(self):
        """N-8, step 4: rings the other side if its ARMED is 1"""
        if self.memory[self.out.region + ARMED] == 1:
            self.ring()

    # -- the sender

    def clean_lines(self):
        for position in range(self.out.count):
            self.memory[self.out.line(position)] = 0

    def say(self, phase):
        self.hello = self.hello & ~CLEAN | phase
        self.memory[self.out.header + HELLO] = self.hello
        self.ring_if_armed()

    def say_hello(self):
        """N-9: begins a life; or, if sends are Broken, begins a new session of this life"""
        control = self.out.control
        before, answer = self.memory[self.out.header + HELLO], self.memory[control + ANSWER]
        session = (before >> 32) + 1 & 0xFFFF
        if session == answer >> 32 & 0xFFFF:
            session = session + 1 & 0xFFFF
        self.hello = HELLO_SET | session << 32 | self.setup.me.life
        self.tail = self.credit = 0
        self.was_answered = False
        self.memory[self.out.header + WANT] = 0
        if before or answer or self.memory[control + BREACH] or self.memory[control + CREDIT]:
            return self.say(BEGIN)
        self.clean_lines()
        self.say(FIRST)

    def may_send(self):
        """N-9: handles ANSWER in each phase. Returns whether this life may send."""
        answer, name = self.memory[self.out.control + ANSWER], self.hello & ~CLEAN
        phase = self.hello & CLEAN
        if phase == BEGIN:
            if answer == name | BEGIN:
                self.clean_lines()
                self.say(CLEAN)
            return False
        if answer == self.hello:
            if phase == CLEAN and not self.was_answered:
                self.tail = self.credit = self.memory[self.out.control + BASE]
            self.was_answered = True
            return True
        if not self.was_answered and (answer == name | BEGIN or phase == FIRST and not answer):
            return phase == FIRST
        self.say_hello()
        return False

    def send(self, kind, data):
        out, memory = self.out, self.memory
        if len(data) > out.most or kind >= 0xFFFF0000:  # N-7
            return -22
        if not self.may_send():
            return 1
        if memory[out.control + BREACH]:  # N-14
            return -71
        end = self.tail + lines_of(len(data))
        credit = memory[out.control + CREDIT]
        if not self.credit <= credit <= self.tail:  # N-8: Broken
            self.say_hello()
            return 1
        self.credit = credit
        if end - credit > out.count:  # Full: N-8, step 1
            memory[out.header + WANT] = end - out.count
            self.ring_if_armed()
            return 1
        for number, position in enumerate(range(self.tail + 1, end)):
            line, part = out.line(position), data[48 + 56 * number :][:56]
            memory[line] = out.lap(position) | TAG_SET | TAG_FURTHER
            self.store(line + 1, part)
        line = out.line(self.tail)
        memory[line + 1] = len(data) | (self.setup.me.cpu & 0xFFFFFFFF) << 32
        self.store(line + 2, data[:48])
        memory[line] = out.lap(self.tail) | TAG_SET | kind << 32  # last: N-8, step 3
        self.tail = end
        self.ring_if_armed()
        return 0

    def store(self, at, data):
        for offset, word in enumerate(to_words(data)):
            self.memory[at + offset] = word

    # -- the receiver

    def set_answer(self, answer):
        self.answer = answer
        self.memory[self.into.control + ANSWER] = answer
        self.ring_if_armed()

    def go_on_at(self, position):
        """N-10, step 2: stores HANDED and CREDIT"""
        self.next = position
        self.memory[self.into.control + HANDED] = position
        self.memory[self.into.control + CREDIT] = position
        self.confirmed = True

    def is_read(self):
        return not self.quarantine and self.answer & CLEAN in (FIRST, CLEAN)

    def accuse(self, why):
        """N-14: puts the lane into quarantine; or, if a former life may have caused the fault, disowns the sender (N-9, N-11)"""
        if self.confirmed:
            self.quarantine = True
            self.memory[self.into.control + BREACH] = why
            return self.ring()
        hello = self.memory[self.into.header + HELLO]
        if hello & CLEAN == BEGIN:
            self.seen = 0
        self.set_answer(HELLO_SET | BEGIN | hello + (1 << 32) & (1 << 48) - 1)

    def begin_receiving(self):
        """N-11: begins a life of the receiver"""
        memory, region, control = self.memory, self.into.region, self.into.control
        credit, handed, doubts = (memory[control + word] for word in (CREDIT, HANDED, DOUBTS))
        life = memory[region + LIFE]
        memory[region + ARMED] = memory[region + BELL] = 0
        self.answer = self.seen = memory[control + ANSWER]
        self.quarantine, self.confirmed, self.answered = memory[control + BREACH] != 0, False, 0
        if (credit | handed) >> 61 or not 0 <= handed - credit <= self.into.count:
            handed = self.into.count
            self.accuse(0)
        elif life and life & 0xFFFFFFFF != self.setup.me.life and handed > credit:
            if not doubts or memory[control + DOUBT + (doubts - 1) % 4] != handed:
                memory[control + DOUBT + doubts % 4] = handed
                memory[control + DOUBTS] = doubts + 1
        self.go_on_at(handed)
        self.confirmed = not self.answer
        memory[region + HEARTBEAT] = 0
        memory[region + LIFE] = self.setup.me.life

    def find(self, position, end):
        """N-7: the message at a position: CPU id, type and bytes; None if there is none; a number of N-14 for a breach"""
        lane, memory = self.into, self.memory
        at = lane.line(position)
        head = memory[at]
        ahead = head - lane.lap(position) & LAP_MASK
        if not head & TAG_SET or ahead > 1 << 29:
            return None
        if ahead or head & TAG_FURTHER:
            return BAD_TAG
        about = memory[at + 1]
        size = about & 0xFFFFFFFF
        if size > lane.most:
            return BAD_LENGTH
        if position + lines_of(size) > end:
            return BAD_TAG
        data = to_bytes(memory[at + 2 : at + 8], min(size, 48))
        for further in range(position + 1, position + lines_of(size)):
            at = lane.line(further)
            if memory[at] != lane.lap(further) | TAG_SET | TAG_FURTHER:
                return BAD_TAG
            data += to_bytes(memory[at + 1 : at + 8], min(size - len(data), 56))
        return about >> 32, head >> 32 & 0xFFFFFFFF, data

    def begin_at(self, position, hello):
        """N-9: answers a life, and begins to read its lines"""
        self.memory[self.into.control + BASE] = position
        self.go_on_at(position)
        self.memory[self.into.control + BREACH] = 0
        self.quarantine, self.answered, self.seen = False, 0, hello
        self.set_answer(hello)

    def answer_hello(self, hello):
        """N-9, N-14: handles a hello that differs from ANSWER. Returns a message of the former life, or None."""
        phase, begin = hello & CLEAN, hello & ~CLEAN | BEGIN
        known = (hello & ~CLEAN) >> 48 == HELLO_SET >> 48 and phase and hello & 0xFFFFFFFF
        if not known or phase == FIRST and self.answer and self.answer != begin:
            self.seen = hello
            self.accuse(BAD_HELLO)
        elif phase == FIRST:
            self.set_answer(begin)
            if self.memory[self.into.header + HELLO] == hello:
                self.begin_at(0, hello)
        elif phase == CLEAN and self.answer == begin:
            self.begin_at(self.next, hello)
        else:
            end = self.next + self.into.count
            for position in range(self.next, end if self.is_read() else self.next):
                found = self.find(position, end)
                if isinstance(found, tuple):
                    self.go_on_at(position + lines_of(len(found[2])))
                    return found
            if phase == BEGIN:
                self.seen = hello
            self.set_answer(begin)
        return None

    def look(self):
        """Returns a message; None if there is nothing; True if it has handled something else"""
        found = self.find(self.next, self.next + self.into.count) if self.is_read() else None
        if isinstance(found, tuple):
            self.go_on_at(self.next + lines_of(len(found[2])))
        elif found is not None:
            self.accuse(found)
        want = self.memory[self.into.header + WANT]
        if self.answered < want <= self.next:
            self.answered = want
            self.ring()
        if found is not None:
            return found if isinstance(found, tuple) else True
        hello = self.memory[self.into.header + HELLO]
        if not hello or hello == self.seen:
            return None
        return self.answer_hello(hello) or True

    def receive(self):
        """N-10: a drain with a budget of one message or 16 rounds"""
        armed = False
        self.memory[self.into.region + ARMED] = 0
        for _ in range(16):
            found = self.look()
            if armed and found is None:
                return 0
            armed = found is None
            self.memory[self.into.region + ARMED] = int(armed)
            if isinstance(found, tuple):
                return found
            self.may_send()
        return -11  # N-13: something may be left

    def interrupt(self):
        self.memory[self.into.region + ARMED] = 0

    def fini(self):
        self.memory[self.into.region + LIFE] = self.setup.me.life | 1 << 32  # N-4: goodbye
        self.memory[self.out.header + ATTACHED] = 0  # N-17


def main():
    peer = None
    for line in sys.stdin:
        order, *words = line.split()
        result = 0
        if order == "init":
            setup = Setup(words)
            try:
                peer = {1: Slots, 2: Native}[setup.layout](setup)
            except (KeyError, ValueError):
                result = -71
        elif order == "send":
            result = peer.send(int(words[0]), bytes.fromhex(words[1] if len(words) > 1 else ""))
        elif order == "receive":
            result = peer.receive()
        else:
            {"interrupt": peer.interrupt, "fini": peer.fini}[order]()
        if isinstance(result, tuple):
            cpu, kind, data = result
            print("= 1", cpu, kind, data.hex(), flush=True)
        else:
            print("=", result, flush=True)


main()
