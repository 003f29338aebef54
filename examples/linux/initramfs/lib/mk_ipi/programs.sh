# SPDX-License-Identifier: MIT OR Apache-2.0
# Tests of the terminals and the peer devices, with the kernels of spawn.sh. The spawned Linux is instance 3.

terminal=/dev/ttyMK3
peer=/dev/mk_ipi_peer3
# The output of the spawned Linux on its terminal.
screen=/tmp/screen

programs() {
	step "programs: each kernel has a terminal and a peer device" each_has_devices
	cat $terminal > $screen &
	screen_pid=$!
	step "console: the boot messages of kernel 3 are shown" await 10 shown 'Linux version'
	step "console: later kernel messages of kernel 3 are shown" await 10 shown 'mk_ipi: joined as instance 3'
	step "console: there is a login" await 10 shown 'login:'
	step "console: root logs in" types root 'BusyBox v'
	step "console: a shell works" types 'echo $((6*7))is it' '^42is it'
	step "console: a new kernel message is shown" types 'echo programs-say > /dev/kmsg' '\] programs-say'
	step "console: 200 KiB of output, none is lost" much_on_console
	many_rounds "programs: messages there and back, with poll" talk rounds $peer 7
	step "programs: messages with dd" by_dd
	step "programs: messages with socat" by_socat
	in_python
	step "programs: a reader that reads nothing stops only its own writer" held_up
	step "programs: a channel with a reader is busy, and free after the reader's end" taken_channel
	step "programs: empty messages, and messages that are too long" bad_lengths
	step "programs: random calls to a device" talk fuzz $peer 5
	step "programs: messages there and back, after the random calls" talk rounds $peer 7 100
	dies_amid
	kill $screen_pid
	step "console: kernel 1 is restarted, and logs to its terminal" begin_on_link
	step "console: the log of kernel 1 is shown" await 10 last_words_of 1 'serving'
	# Kernel 1 writes its own records to its terminal, too, so they are copied from there.
	grep '^@' /tmp/last.1 > $records
}

begin_on_link() {
	stop 1 && start 1 mk_ipi.console=link && await 10 is_up 1
}

# last_words_of ID PATTERN: reads the terminal of a kernel, and returns whether its output so far contains the pattern.
last_words_of() {
	timeout 1 cat /dev/ttyMK$1 | tr -d '\r' >> /tmp/last.$1
	grep "$2" /tmp/last.$1
}

# How many messages are sent there and back with poll. The scenario that contains all tests uses fewer.
rounds() {
	case $(option scenario) in
	programs) option messages ;;
	*) echo 2000 ;;
	esac
}

# many_rounds NAME COMMAND...: runs the command several times, each time for a part of the messages and as one step, so that
# the records show progress.
many_rounds() {
	local left=$(rounds) name=$1 piece
	shift
	while [ $left -gt 0 ]; do
		piece=$((left < 5000 ? left : 5000))
		step "$name, $left messages are left" timeout 600 "$@" $piece || return
		left=$((left - piece))
	done
}

each_has_devices() {
	ls -l /dev/ttyMK1 /dev/ttyMK2 $terminal /dev/mk_ipi_peer1 /dev/mk_ipi_peer2 $peer || return
	[ "$(stat -c %a $peer)" = 660 ] && [ ! -e /dev/ttyMK0 ] && [ ! -e /dev/mk_ipi_peer0 ]
}

# last_words PATTERN: true if the unread output on the terminal of kernel 3 contains the pattern.
last_words() {
	timeout 3 cat $terminal | tr -d '\r' > /tmp/last
	grep "$1" /tmp/last || { tail -c 300 /tmp/last; return 1; }
}

# shown PATTERN: true if the output of kernel 3 contains the pattern.
shown() {
	tr -d '\r' < $screen | grep -q -e "$1"
}

# types LINE PATTERN: writes a line to the terminal, and waits until the output contains the pattern.
types() {
	: > $screen
	printf '%s\r' "$1" > $terminal
	await 10 shown "$2" || { echo "not shown: $2"; tail -c 200 $screen; return 1; }
}

# Makes the spawned Linux print more than fits into any buffer, and compares the checksum of the output.
much_on_console() {
	local sum
	: > $screen
	printf 'stty -echo -onlcr; seq 100000 133333 | tee /tmp/much; md5sum < /tmp/much; stty sane\r' > $terminal
	await 60 shown '^[0-9a-f]\{32\} ' || { tail -c 200 $screen; return 1; }
	sum=$(grep '^1[0-9]\{5\}' $screen | tr -d '\r' | head -n 33334 | md5sum | cut -d' ' -f1)
	grep "$sum" $screen || { wc -c $screen; grep -c '^1[0-9]\{5\}' $screen; tail -n 3 $screen; return 1; }
}

by_dd() {
	types 'dd if=/dev/mk_ipi_peer0 of=/tmp/got bs=4096 count=1; dd if=/tmp/got of=/dev/mk_ipi_peer0 bs=4096' 'dd' || return
	dd if=$kept of=/tmp/one bs=4000 count=1 2> /dev/null
	dd if=$peer of=/tmp/back bs=4096 count=1 2> /dev/null &
	local reader=$!
	dd if=/tmp/one of=$peer bs=4096 2> /dev/null || return
	await 10 not_running $reader || { kill $reader; echo "no message came back within 10 s"; return 1; }
	cmp /tmp/one /tmp/back && ls -l /tmp/back
}

by_socat() {
	[ -x /usr/bin/socat ] || { echo "not run: this machine has no socat"; return; }
	types '/usr/bin/socat -u /dev/mk_ipi_peer0 OPEN:/tmp/socat,creat,append & sleep 1; echo begun' '^begun' || return
	echo by socat | timeout 20 /usr/bin/socat -u - $peer || return
	types 'sleep 1; kill %1; tr a-z A-Z < /tmp/socat' '^BY SOCAT'
}

in_python() {
	[ -x /usr/bin/python3 ] || { pass "programs: in Python" "not run: this machine has no Python"; return; }
	export PYTHONHOME=/usr
	many_rounds "programs: in Python, with poll" /lib/mk_ipi/rounds.py $peer
}

not_running() {
	! kill -0 $1 2> /dev/null
}

# On the spawned Linux a program opens channel 9 for reading, and reads nothing. A writer of channel 9 must find it full, and
# channel 7 must still work.
held_up() {
	types 'talk hold /dev/mk_ipi_peer0 9 & sleep 1; echo held' '^held' || return
	talk flood $peer 9 > /tmp/flood || return
	talk rounds $peer 7 200 || return
	types 'kill %1; echo free' '^free' || return
	grep 'Resource temporarily unavailable after [1-9]' /tmp/flood || { cat /tmp/flood; return 1; }
}

# While a program reads from channel 5, a second reader must be refused. After its end, a new reader must be accepted.
taken_channel() {
	talk echo $peer 5 > /dev/null &
	local first=$!
	sleep 0.3
	! talk echo $peer 5 || return
	kill $first
	sleep 0.2
	timeout 1 talk echo $peer 5
	[ $? -ne 1 ]
}

bad_lengths() {
	dd if=$kept of=$peer bs=4097 count=1 2>&1 | grep 'Message too long' || return
	printf '' > $peer
}

# Kills the spawned Linux while a program writes to it. The program must get EPIPE. When the next life is up, it must get
# ECONNRESET once, and then it must work again.
dies_amid() {
	talk until $peer 7 > /tmp/until &
	local writer=$!
	sleep 1
	step "programs: kernel 3 is killed while a program writes to it" mk kill 3 || return
	step "programs: the program gets EPIPE" await 5 grep -q 'Broken pipe' /tmp/until
	step "programs: the reader of the terminal still runs" kill -0 $screen_pid
	: > $screen
	step "programs: kernel 3 is started again" start 3 || return
	step "programs: all kernels are up again" await $boot all_up || return
	tell_life 3
	step "programs: the program gets ECONNRESET" await 20 grep -q 'Connection reset' /tmp/until
	step "programs: the program works with the next life" await 20 grep -q 'works again' /tmp/until
	record "{\"step\":{\"name\":\"programs: output of the program\",\"ok\":true,\"detail\":\"$(json "$(cat /tmp/until)")\"}}"
	wait $writer
	step "programs: messages there and back with the next life" talk rounds $peer 7 200
	step "console: the boot messages of the next life are shown" await 10 shown 'Linux version'
}

# The scenario that runs only these tests.
programs_alone() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "make a large file" keep_file
	step "load" load native || return
	step "give, create, start" bring_up_all || return
	step "all kernels are up" await $boot all_up || return
	kernels 1 2 3
	programs
	step "stop, destroy kernel 3" stop_and_destroy 3
	step "the devices of kernel 3 are removed" await 5 no_devices
	step "stop, destroy the others, take their CPUs" bring_down
	step "take the CPUs of kernel 3" mk take $three $four
	step "unload" unload
	step "no trace of the module is left" nothing_left
	step "no memory leak" leaks
}

no_devices() {
	[ ! -e $peer ] && [ ! -e $terminal ]
}
