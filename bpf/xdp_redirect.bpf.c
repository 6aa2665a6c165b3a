// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The redirect program: a packet goes to the AF_XDP socket of the queue it arrived on, or to the host stack where
 * nobody bound that queue, or where rules say so (steering.bpf.h).
 *
 * The loader sets max_entries of both maps to the number of receive queues; a queue beyond (the NIC got more channels
 * later) passes, uncounted. No metadata is made: it would be written into the headroom of the UMEM chunk, which is the
 * tail of the netmap buffer before it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "steering.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} xsks SEC(".maps");

/* Read by the loader as [u64; 2], in this order. */
struct verdicts {
	__u64 redirected;
	__u64 passed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct verdicts);
	__uint(max_entries, 1);
} verdicts SEC(".maps");

/*
 * Generic mode: how a frame begins that a host ring sent into the stack (host_rings.bpf.c). It is an Ethernet header too
 * many, and a secret. Read and written by the loader as [u64; 3].
 */
struct injected {
	__u64 on;
	__u8 head[16];
};

#define HEAD_LEN 14

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct injected);
	__uint(max_entries, 1);
} injected SEC(".maps");

/* Whether the frame comes from a host ring; its head is off then. */
static __always_inline int is_injected(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct injected *ours = bpf_map_lookup_elem(&injected, &zero);
	__u8 *data, *end;

	if (!ours || !ours->on)
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + HEAD_LEN > end)
		return 0;
	for (int i = 0; i < HEAD_LEN; i++)
		if (data[i] != ours->head[i])
			return 0;
	return bpf_xdp_adjust_head(ctx, HEAD_LEN) == 0;
}

static __always_inline int to_socket_or_stack(struct xdp_md *ctx, int frags)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 rules;
	int verdict = XDP_PASS;

	if (is_injected(ctx))
		return XDP_PASS;

	/* Without rules this costs a load. The helper answers XDP_REDIRECT only if the map holds a socket; its flags are the
	 * verdict otherwise. */
	rules = steering;
	if (!rules || !steer_to_host(ctx, rules, frags))
		verdict = bpf_redirect_map(&xsks, queue, XDP_PASS);
	struct verdicts *seen = bpf_map_lookup_elem(&verdicts, &queue);

	if (seen) {
		/* The slot is this CPU's own: no atomics. */
		if (verdict == XDP_REDIRECT)
			seen->redirected++;
		else
			seen->passed++;
	}
	return verdict;
}

/*
 * Names have 15 characters at most, so that the kernel shows them whole. "frags" lets drivers attach it at an MTU above
 * one page.
 */
SEC("xdp.frags")
int netmap_redirect(struct xdp_md *ctx)
{
	return to_socket_or_stack(ctx, 1);
}

/* For kernels before 5.18, which refuse the frags flag and have no bpf_xdp_load_bytes. */
SEC("xdp")
int netmap_nofrags(struct xdp_md *ctx)
{
	return to_socket_or_stack(ctx, 0);
}

/*
 * When the NIC received the last frame of a queue that went to a socket, by its own clock, and how many frames it was asked
 * about. It is read where it lies, by whoever syncs the ring: metadata in front of the frame would spoil the buffer before it.
 */
struct stamp {
	__u64 ns;
	__u64 asked;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct stamp);
	__uint(max_entries, 1);
} stamps SEC(".maps");

/*
 * bpf_xdp_metadata_rx_timestamp, a function of the driver's. The loader puts its number into the instruction (stamped.rs), so
 * that the object can be loaded by kernels and libraries that know no such functions.
 */
static __always_inline long received_at(struct xdp_md *ctx, __u64 *ns)
{
	register long answer asm("r0");
	register void *first asm("r1") = ctx;
	register void *second asm("r2") = ns;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	asm volatile(".8byte 0x7e7e7e7e00002085"
#else
	asm volatile(".8byte 0x850200007e7e7e7e"
#endif
		     : "=r"(answer), "+r"(first), "+r"(second)
		     :
		     : "r3", "r4", "r5", "memory");
	return answer;
}

/* For one device, whose driver tells when it received a frame. */
SEC("xdp.frags")
int netmap_stamped(struct xdp_md *ctx)
{
	int verdict = to_socket_or_stack(ctx, 1);
	__u32 queue = ctx->rx_queue_index;
	struct stamp *stamp;
	__u64 ns = 0;

	if (verdict != XDP_REDIRECT)
		return verdict;
	stamp = bpf_map_lookup_elem(&stamps, &queue);
	if (!stamp)
		return verdict;
	if (received_at(ctx, &ns) == 0) {
		/* A queue is one CPU's at a time. */
		stamp->asked++;
		if (ns)
			stamp->ns = ns;
	}
	return verdict;
}

/* XDP programs may carry any licence; this one tells the kernel what the file says. */
char _license[] SEC("license") = "Dual BSD/GPL";
