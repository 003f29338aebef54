# SPDX-License-Identifier: MIT OR Apache-2.0
# The other scenarios: a trace of what a spawned Linux touches, damaged images, and a shell.

# One life of a spawned Linux. The emulator traces each access to a device. Bytes to an unused port are marks in the
# trace.
trace() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "load" load native || return
	step "give, create" give_and_create || return
	step "begin" mark b
	step "start" start 3 || return
	step "it is up" await $boot is_up 3 || return
	step "streams and pings, whole" whole_traffic 3
	step "take a CPU" mk take $four from=3
	step "give it back" mk give $four to=3
	step "streams and pings again, whole" whole_traffic 3
	step "stop" stop 3
	step "end" mark e
	step "destroy, take" destroy_and_take
	step "all CPUs online" online_is $online_before
	step "unload" unload
	step "nothing left" nothing_left
}

give_and_create() {
	mk give $three $four && create_linux
}

destroy_and_take() {
	mk destroy 3 && mk take $three $four
}

mark() {
	printf $1 | dd of=/dev/port bs=1 seek=$(($(option marks))) conv=notrunc 2> /dev/null
}

# Offers damaged images, none of which may be started. Then starts good ones, which must run as usual.
fuzz() {
	local seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	: > /tmp/empty
	truncate -s 512M /tmp/large
	step "load" load native || return
	step "give, create" give_and_create_all || return
	parts > /tmp/parts
	step "damaged images, seed $seed" offer $seed
	step "all memory was given back" is "$(cat /tmp/parts)" "$(parts)"
	step "start" start_all || return
	step "all are up" await $boot all_up || return
	step "streams and pings, whole" whole_traffic 1 2 3
	step "stop, destroy 3" stop_and_destroy 3
	step "stop, destroy, take" bring_down
	step "take" mk take $three $four
	step "all CPUs online" online_is $online_before
	step "unload" unload
	step "nothing left" nothing_left
	step "leaks" leaks
}

# Lists which owner has which part of the memory.
parts() {
	grep '^0x' /sys/kernel/debug/mk_ipi/statistics
}

give_and_create_all() {
	mk give $one $two $three $four && mk create 1 cpus=$one && mk create 2 cpus=$two && create_linux
}

start_all() {
	start 1 && start 2 && start 3
}

# The progress is written as records. The rest of the output says how often each result came. Meanwhile the program
# decides which log lines the console gets.
offer() {
	local done
	dmesg -n 1
	fuzz-start "$(option seconds)" $1 /lib/mk_ipi/guest.cpio 1=$(image_of 1) 3=$(image_of 3) 2> $records
	done=$?
	dmesg -n 7
	return $done
}

# A shell here, and one in the spawned Linux at its own serial line.
shell() {
	if spawns; then
		load native && give_and_create && start 3 mk_ipi.end=shell ||
			echo "The spawned Linux does not start; dmesg tells why."
		cat $device
	fi
	exec setsid cttyhack sh
}
