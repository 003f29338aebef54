# SPDX-License-Identifier: MIT OR Apache-2.0
# The links for programs and people: the console of the spawned Linux, instance 3, and the device of each peer.

terminal=/dev/ttyMK3
peer=/dev/mk_ipi_peer3
# What came on the terminal.
screen=/tmp/screen

programs() {
	step "programs: a terminal and a device for each" each_has_devices
	cat $terminal > $screen &
	screen_pid=$!
	step "console: the boot messages are there" await 10 shown 'Linux version'
	step "console: what came after, too" await 10 shown 'mk_ipi: joined as instance 3'
	step "console: a login" await 10 shown 'login:'
	step "console: root logs in" types root 'BusyBox v'
	step "console: a shell works" types 'echo $((6*7))is it' '^42is it'
	step "console: a new message of its kernel" types 'echo programs-say > /dev/kmsg' '\] programs-say'
	step "console: 200 KiB, none lost" much_on_console
	many_rounds "programs: rounds by poll" talk rounds $peer 7
	step "programs: by dd" by_dd
	step "programs: by socat" by_socat
	in_python
	step "programs: one that reads nothing holds up who writes, and nobody else" held_up
	step "programs: the channel is taken, and free again" taken_channel
	step "programs: messages of no length, and too long" bad_lengths
	step "programs: any calls" talk fuzz $peer 5
	step "programs: rounds by poll, after that" talk rounds $peer 7 100
	dies_amid
	kill $screen_pid
	step "console: kernel 1 is to print there" begin_on_link
	step "console: kernel 1's log" await 10 last_words_of 1 'serving'
	# Kernel 1's own records have no other way out.
	grep '^@' /tmp/last.1 > $records
}

begin_on_link() {
	stop 1 && start 1 mk_ipi.console=link && await 10 is_up 1
}

last_words_of() {
	timeout 1 cat /dev/ttyMK$1 | tr -d '\r' >> /tmp/last.$1
	grep "$2" /tmp/last.$1
}

# How many messages go there and back with poll. They are few in the scenario that runs everything.
rounds() {
	case $(option scenario) in
	programs) option messages ;;
	*) echo 2000 ;;
	esac
}

# many_rounds NAME COMMAND...: runs it in pieces, one step each, so that the records show progress.
many_rounds() {
	local left=$(rounds) name=$1 piece
	shift
	while [ $left -gt 0 ]; do
		piece=$((left < 5000 ? left : 5000))
		step "$name, $left to go" timeout 600 "$@" $piece || return
		left=$((left - piece))
	done
}

each_has_devices() {
	ls -l /dev/ttyMK1 /dev/ttyMK2 $terminal /dev/mk_ipi_peer1 /dev/mk_ipi_peer2 $peer || return
	[ "$(stat -c %a $peer)" = 660 ] && [ ! -e /dev/ttyMK0 ] && [ ! -e /dev/mk_ipi_peer0 ]
}

# last_words PATTERN: true if the pattern is on the terminal, which no program has read yet.
last_words() {
	timeout 3 cat $terminal | tr -d '\r' > /tmp/last
	grep "$1" /tmp/last || { tail -c 300 /tmp/last; return 1; }
}

shown() {
	tr -d '\r' < $screen | grep -q -e "$1"
}

# types LINE PATTERN: writes a line, and waits for the output that it causes.
types() {
	: > $screen
	printf '%s\r' "$1" > $terminal
	await 10 shown "$2" || { echo "not shown: $2"; tail -c 200 $screen; return 1; }
}

# Prints more than fits into any buffer, and compares the sum.
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
	await 10 not_running $reader || { kill $reader; echo "nothing came back"; return 1; }
	cmp /tmp/one /tmp/back && ls -l /tmp/back
}

by_socat() {
	[ -x /usr/bin/socat ] || { echo "not run: this machine has none"; return; }
	types '/usr/bin/socat -u /dev/mk_ipi_peer0 OPEN:/tmp/socat,creat,append & sleep 1; echo begun' '^begun' || return
	echo by socat | timeout 20 /usr/bin/socat -u - $peer || return
	types 'sleep 1; kill %1; tr a-z A-Z < /tmp/socat' '^BY SOCAT'
}

in_python() {
	[ -x /usr/bin/python3 ] || { pass "programs: in Python" "not run: this machine has none"; return; }
	export PYTHONHOME=/usr
	many_rounds "programs: in Python, by poll" /lib/mk_ipi/rounds.py $peer
}

not_running() {
	! kill -0 $1 2> /dev/null
}

# Channel 9 has a reader that opens it and reads nothing.
held_up() {
	types 'talk hold /dev/mk_ipi_peer0 9 & sleep 1; echo held' '^held' || return
	talk flood $peer 9 > /tmp/flood || return
	talk rounds $peer 7 200 || return
	types 'kill %1; echo free' '^free' || return
	grep 'Resource temporarily unavailable after [1-9]' /tmp/flood || { cat /tmp/flood; return 1; }
}

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

# The spawned Linux dies while a program writes to it: the program gets EPIPE. With the next life it gets ECONNRESET,
# once. Then everything works.
dies_amid() {
	talk until $peer 7 > /tmp/until &
	local writer=$!
	sleep 1
	step "programs: kill amid messages" mk kill 3 || return
	step "programs: who writes learns of it" await 5 grep -q 'Broken pipe' /tmp/until
	step "programs: the screen is still there" kill -0 $screen_pid
	: > $screen
	step "programs: start again" start 3 || return
	step "programs: all are up again" await $boot all_up || return
	tell_life 3
	step "programs: and of the next life" await 20 grep -q 'Connection reset' /tmp/until
	step "programs: which works" await 20 grep -q 'works again' /tmp/until
	record "{\"step\":{\"name\":\"programs: what it learned\",\"ok\":true,\"detail\":\"$(json "$(cat /tmp/until)")\"}}"
	wait $writer
	step "programs: rounds with the next life" talk rounds $peer 7 200
	step "console: the next life's boot messages" await 10 shown 'Linux version'
}

# The same as a scenario of its own.
programs_alone() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "a large file" keep_file
	step "load" load native || return
	step "give, create, start" bring_up_all || return
	step "all are up" await $boot all_up || return
	kernels 1 2 3
	programs
	step "stop, destroy 3" stop_and_destroy 3
	step "its devices are gone" await 5 no_devices
	step "stop, destroy the others, take" bring_down
	step "take" mk take $three $four
	step "unload" unload
	step "nothing left" nothing_left
	step "leaks" leaks
}

no_devices() {
	[ ! -e $peer ] && [ ! -e $terminal ]
}
