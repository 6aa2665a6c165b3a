// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Host rings: what joins a NIC's host stack to a TAP device.
 *
 *   host sends    NIC, tcx egress   netmap_host_out -> TAP -> its file descriptor: rxsync of a host ring
 *   host receives TAP, tcx ingress  netmap_host_in  -> NIC, as if received there: txsync of a host ring
 *   the TAP's own TAP, tcx egress   netmap_tap_out     drops what the stack sends by itself on a new interface
 *   cut off       NIC, tcx egress   netmap_host_cut    nothing of the host's leaves by a NIC that is netmap's alone
 *
 * AF_XDP sends below tcx egress, so what leaves a NIC ring never comes by here. A frame that enters the stack by redirect
 * meets the NIC's XDP program only in generic mode, where it would go round for ever: there it gets a head that
 * xdp_redirect.bpf.c recognises.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Verdicts of a tcx program, as linux/bpf.h has them since 6.6; a clsact filter's are the same. */
enum {
	HOST_NEXT = -1,
	HOST_DROP = 2,
	/* Of clsact: gone, and no loss, which a drop would be in TCP's eyes. */
	HOST_TAKEN = 4,
};

/* Filled in by the loader, as 32 bytes. */
struct plan {
	/* The two interfaces. */
	__u32 nic;
	__u32 tap;
	/* What marks a packet that comes from the NIC, to tell it from the TAP's own. */
	__u32 mark;
	/* Whether frames get a head, and the head: an Ethernet header in length and place. */
	__u32 headed;
	__u8 head[16];
};

const volatile struct plan plan = {};

SEC("classifier")
int netmap_host_out(struct __sk_buff *skb)
{
	skb->mark = plan.mark;
	return bpf_redirect(plan.tap, 0);
}

/*
 * The same for a clsact filter, which stays on the NIC when its maker is killed: once the TAP is gone, the host's packets leave
 * by the NIC as if it were not there. The price is a clone.
 */
SEC("classifier")
int netmap_host_lax(struct __sk_buff *skb)
{
	__u32 before = skb->mark;

	skb->mark = plan.mark;
	if (bpf_clone_redirect(skb, plan.tap, 0) == 0)
		return HOST_TAKEN;
	skb->mark = before;
	return HOST_NEXT;
}

SEC("classifier")
int netmap_host_in(struct __sk_buff *skb)
{
	if (plan.headed) {
		__u8 bytes[14];

		for (int i = 0; i < 14; i++)
			bytes[i] = plan.head[i];
		if (bpf_skb_change_head(skb, sizeof(bytes), 0) ||
		    bpf_skb_store_bytes(skb, 0, bytes, sizeof(bytes), 0))
			return HOST_DROP;
	}
	return bpf_redirect(plan.nic, BPF_F_INGRESS);
}

SEC("classifier")
int netmap_tap_out(struct __sk_buff *skb)
{
	return skb->mark == plan.mark ? HOST_NEXT : HOST_DROP;
}

SEC("classifier")
int netmap_host_cut(struct __sk_buff *skb)
{
	(void)skb;
	return HOST_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
