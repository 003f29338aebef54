# SPDX-License-Identifier: MIT OR Apache-2.0
# The other scenarios: a trace of the devices that a spawned Linux accesses, damaged images, and a shell.

# Runs one life of a spawned Linux, while the emulator traces each access to a device. `mark` writes a byte to an unused port,
# which marks the place in the trace.
trace() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "load" load native || return
	step "give, create" give_and_create || return
	step "mark the beginning in the trace" mark b
	step "start" start 3 || return
	step "the spawned Linux is up" await $boot is_up 3 || return
	step "streams and pings, no message is lost" whole_traffic 3
	step "take a CPU from the spawned Linux" mk take $four from=3
	step "give the CPU to the spawned Linux again" mk give $four to=3
	step "streams and pings again, no message is lost" whole_traffic 3
	step "stop" stop 3
	step "mark the end in the trace" mark e
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

# Checks damaged images with the command `check`, which must not harm the module. Then starts undamaged images, which must run
# as usual.
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
	step "all kernels are up" await $boot all_up || return
	step "streams and pings, no message is lost" whole_traffic 1 2 3
	step "stop, destroy kernel 3" stop_and_destroy 3
	step "stop, destroy the others, take their CPUs" bring_down
	step "take the CPUs of kernel 3" mk take $three $four
	step "all CPUs are online" online_is $online_before
	step "unload" unload
	step "no trace of the module is left" nothing_left
	step "no memory leak" leaks
}

# Lists the parts of the memory and their owners.
parts() {
	grep '^0x' /sys/kernel/debug/mk_ipi/statistics
}

give_and_create_all() {
	mk give $one $two $three $four && mk create 1 cpus=$one && mk create 2 cpus=$two && create_linux
}

start_all() {
	start 1 && start 2 && start 3
}

# offer SEED: runs fuzz-start. It writes its progress as records to stderr, and the number of each result to stdout. During
# this time the kernel writes no log lines to the console, because the program does it.
offer() {
	local done
	dmesg -n 1
	fuzz-start "$(option seconds)" $1 /lib/mk_ipi/guest.cpio 1=$(image_of 1) 3=$(image_of 3) 2> $records
	done=$?
	dmesg -n 7
	return $done
}

# Starts a shell here, and one in the spawned Linux, which uses a serial line of its own.
shell() {
	if spawns; then
		load native && give_and_create && start 3 mk_ipi.end=shell ||
			echo "The spawned Linux cannot be started; dmesg shows the reason."
		cat $device
	fi
	exec setsid cttyhack sh
}
