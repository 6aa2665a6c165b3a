// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * What calls several XDP programs of one NIC, one after the other: a dispatcher as libxdp's protocol wants it, version 2.
 * libxdp fills `conf` before it loads this, and puts a program in the place of each slot (BPF_PROG_TYPE_EXT).
 *
 * It stands in for libxdp's own (libbpf/src/dispatcher.rs): a program that moves the packet's ends, as ours does, takes the
 * place of a function that may do so too, or the kernel refuses it; from 6.13 on, and in stable kernels since. The
 * dispatcher of the libxdp that we link is from before.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define SLOTS 10
#define PROTOCOL 2

/* The verdict of an empty slot; bit 31 is set in each slot's `go_on`. */
#define EMPTY 31

/* Names and order are the protocol's: other users of libxdp read this back from the kernel. */
struct xdp_dispatcher_config {
	__u8 magic;
	__u8 dispatcher_version;
	__u8 num_progs_enabled;
	__u8 is_xdp_frags;
	__u32 chain_call_actions[SLOTS];
	__u32 run_prios[SLOTS];
	__u32 program_flags[SLOTS];
};

/* Constant for the kernel, which drops what comes behind the last slot in use; not for the compiler. */
static volatile const struct xdp_dispatcher_config conf = {};

/* Never run: a slot in use has been replaced. Hence what matters is what the verifier sees, a call that may move the end. */
#define SLOT(name)                                                                                                     \
	__attribute__((noinline)) int name(struct xdp_md *ctx)                                                         \
	{                                                                                                              \
		volatile int verdict = EMPTY;                                                                          \
                                                                                                                       \
		bpf_xdp_adjust_tail(ctx, 0);                                                                           \
		return verdict;                                                                                        \
	}

SLOT(prog0)
SLOT(prog1)
SLOT(prog2)
SLOT(prog3)
SLOT(prog4)
SLOT(prog5)
SLOT(prog6)
SLOT(prog7)
SLOT(prog8)
SLOT(prog9)

/* The slot that libxdp tries out whether the kernel can replace functions. */
SLOT(compat_test)

#define CALL(index)                                                                                                    \
	do {                                                                                                           \
		int verdict;                                                                                           \
                                                                                                                       \
		if (conf.num_progs_enabled <= index)                                                                   \
			return XDP_PASS;                                                                               \
		verdict = prog##index(ctx);                                                                            \
		if (!(conf.chain_call_actions[index] & 1U << verdict))                                                 \
			return verdict;                                                                                \
	} while (0)

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
	CALL(0);
	CALL(1);
	CALL(2);
	CALL(3);
	CALL(4);
	CALL(5);
	CALL(6);
	CALL(7);
	CALL(8);
	CALL(9);
	/* Keeps it in the program. */
	if (conf.num_progs_enabled > SLOTS)
		compat_test(ctx);
	return XDP_PASS;
}

/* What libxdp tries kernels out with. */
SEC("xdp")
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Of no use but its type, in BTF. */
__uint(dispatcher_version, PROTOCOL) SEC("xdp_metadata");

char _license[] SEC("license") = "Dual BSD/GPL";
