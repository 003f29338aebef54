# SPDX-License-Identifier: MIT OR Apache-2.0
# Kernel 1 breaks the protocol (examples/bare-metal/src/hostile.rs). This Linux and the other kernels must continue to work.

hostile() {
	local seed=$(od -A n -N 4 -t u4 /dev/urandom)
	seed=$((seed))
	step "hostile: kernel 1 is started, and sends random messages, seed $seed" begin_hostile noise:$seed
	cat /dev/ttyMK1 > /dev/null 2>&1 &
	local reader=$!
	step "hostile: 200 of its frames are counted as errors" await 60 errors_of_1 200
	step "hostile: random calls to the device of kernel 1" talk fuzz /dev/mk_ipi_peer1 3
	step "hostile: the interface to kernel 1 is set down and up" down_and_up_1
	beside_it
	kill $reader
	step "hostile: 400 of its frames are counted as errors" await 60 errors_of_1 400
	step "hostile: kernel 1 is restarted, and keeps the protocol" revive_1
	step "hostile: kernel 1 is restarted, and accepts no message" begin_hostile deaf
	step "hostile: kernel 1 does not answer a ping" await 30 no_answer
	step "hostile: the lane to kernel 1 becomes full" lane_is_full
	step "hostile: the interface to kernel 1 is set down without a wait" timeout 10 ip link set mk1 down
	beside_it
	ip link set mk1 up
	step "hostile: kernel 1 is restarted again, and keeps the protocol" revive_1
}

# begin_hostile WAY: restarts kernel 1, which then breaks the protocol in this way.
begin_hostile() {
	mk kill 1 && start 1 mk_ipi.hostile=$1 && await 20 is_up 1 && tell_life 1
}

# errors_of_1 COUNT: true if at least COUNT frames of kernel 1 were counted as errors.
errors_of_1() {
	local errors=$(cat /sys/class/net/mk1/statistics/rx_errors)
	echo "$errors errors"
	[ $errors -ge $1 ]
}

down_and_up_1() {
	timeout 10 ip link set mk1 down && timeout 10 ip link set mk1 up
}

# Checks that the other kernels still work while kernel 1 breaks the protocol.
beside_it() {
	step "hostile: meanwhile, ping kernel 3" pings 3 56 20 -i 0.05
	step "hostile: meanwhile, messages to programs on kernel 3" talk rounds /dev/mk_ipi_peer3 7 200
	step "hostile: meanwhile, traffic with kernel 2" whole_traffic 2
}

no_answer() {
	! ping -c 1 -W 1 $(ip_of 1) > /dev/null
}

# Sends messages until the lane is full. The message for which there is no room must fail with an error, without a wait.
lane_is_full() {
	local n=0
	while mk send 1 0x300 $(printf '%0200d' 0) 2> /tmp/full; do
		n=$((n + 1))
		[ $n -lt 10000 ] || { echo "after $n messages there is still space"; return 1; }
	done
	echo "after $n messages: $(cat /tmp/full)"
	grep -q 'No space left' /tmp/full
}
