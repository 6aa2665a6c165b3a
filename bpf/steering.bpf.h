/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Steering: which frames go to netmap and which stay with the host, by rules of which the first that matches counts.
 *
 * A frame becomes a key of five words; a rule is a value and a mask of the same words, and two ranges of ports. A header that
 * is not there whole leaves its fields out of the key, and rules that ask for them do not match. The loader writes a
 * rule set into the place that is not in use, then says so in `steering`.
 */
#ifndef NETMAP_STEERING_BPF_H
#define NETMAP_STEERING_BPF_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>

/* The layout of both structures is known to xsk/steering.rs. */
#define STEER_RULES 64
#define STEER_WORDS 5

struct steer_rule {
	__u64 value[STEER_WORDS];
	__u64 mask[STEER_WORDS];
	__u16 src_first, src_last, dst_first, dst_last;
	__u64 to_host;
};

struct steer_rules {
	__u32 count;
	__u32 to_host; /* what no rule matches */
	struct steer_rule rule[STEER_RULES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct steer_rules);
	__uint(max_entries, 2);
} steer_rules SEC(".maps");

/* 0: no rules; else 1 + which of the two sets holds. */
volatile __u32 steering = 0;

/* Word 0 of the key: the ethertype, behind VLAN tags; the outer tag's VLAN; the protocol; and what of it there is. */
#define KEY_VLAN_SHIFT 16
#define KEY_PROTO_SHIFT 32
#define KEY_FACTS_SHIFT 40
enum {
	FACT_ADDRESSES = 1, /* an IP header, whole */
	FACT_PROTO = 2,
	FACT_PORTS = 4,
	FACT_FRAGMENT = 8, /* any fragment of an IP packet, the first too */
	FACT_TAGGED = 16,
};

struct steer_key {
	__u64 word[STEER_WORDS];
	__u64 src_port, dst_port;
};

/* Headers lie within this many bytes, or are not looked at. */
#define STEER_REACH 1024
#define STEER_TAGS 2
#define STEER_EXTENSIONS 8

struct steer_tag {
	__be16 tci, proto;
};

struct steer_extension {
	__u8 next, len;
	__be16 fragment;
};

struct steer_ports {
	__be16 src, dst;
};

/* Copies a header from `at`; not 0 if it is not there whole. Frames of several buffers may break anywhere. */
#define STEER_LOAD(ctx, at, to, frags)                                                                                 \
	({                                                                                                             \
		__u8 *_data = (void *)(long)(ctx)->data, *_end = (void *)(long)(ctx)->data_end;                        \
		__u32 _at = (at);                                                                                      \
		long _failed = -1;                                                                                     \
		if (_at < STEER_REACH) {                                                                               \
			typeof(to) *_from = (void *)(_data + _at);                                                     \
			if ((void *)(_from + 1) <= (void *)_end) {                                                     \
				(to) = *_from;                                                                         \
				_failed = 0;                                                                           \
			} else if (frags) {                                                                            \
				_failed = bpf_xdp_load_bytes(ctx, _at, &(to), sizeof(to));                             \
			}                                                                                              \
		}                                                                                                      \
		_failed;                                                                                               \
	})

static __always_inline int steer_has_ports(__u8 proto)
{
	/* TCP, UDP, DCCP, SCTP, UDP-Lite. */
	return proto == 6 || proto == 17 || proto == 33 || proto == 132 || proto == 136;
}

/*
 * The key of the frame that this CPU works on. It lies in memory, and those who read and write it are functions of their own,
 * so that the verifier looks at each of them once and not once for each way that leads there.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct steer_key);
	__uint(max_entries, 1);
} steer_keys SEC(".maps");

static __always_inline struct steer_key *steer_key(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&steer_keys, &zero);
}

/* Adds what the header of type `type` at `at` says to the key. */
static __always_inline int steer_packet(struct xdp_md *ctx, __u32 at, __u32 type, int frags)
{
	struct steer_key *key = steer_key();
	__u64 facts = 0, proto = 0;
	__u32 end = 0;

	if (!key)
		return 0;
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (STEER_LOAD(ctx, at, ip, frags) == 0 && ip.version == 4 && ip.ihl >= 5) {
			__u16 fragment = bpf_ntohs(ip.frag_off);

			facts |= FACT_ADDRESSES | FACT_PROTO;
			proto = ip.protocol;
			key->word[1] = ip.saddr;
			key->word[3] = ip.daddr;
			if (fragment & 0x3fff)
				facts |= FACT_FRAGMENT;
			/* Behind the first fragment there are no ports. */
			if (!(fragment & 0x1fff))
				end = at + bpf_ntohs(ip.tot_len);
			at += ip.ihl * 4;
		}
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (STEER_LOAD(ctx, at, ip, frags) == 0 && ip.version == 6) {
			__u8 next = ip.nexthdr;
			int later = 0;

			facts |= FACT_ADDRESSES;
			__builtin_memcpy(&key->word[1], &ip.saddr, 16);
			__builtin_memcpy(&key->word[3], &ip.daddr, 16);
			end = at + sizeof(ip) + bpf_ntohs(ip.payload_len);
			at += sizeof(ip);
			for (int i = 0; i < STEER_EXTENSIONS; i++) {
				struct steer_extension more;

				/* Hop by hop, routing, fragment, authentication, destination options. */
				if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60) {
					facts |= FACT_PROTO;
					proto = next;
					break;
				}
				/* What follows here was cut from the middle of the packet. */
				if (later || STEER_LOAD(ctx, at, more, frags))
					break;
				if (next == 44) {
					facts |= FACT_FRAGMENT;
					later = (more.fragment & bpf_htons(0xfff8)) != 0;
					at += 8;
				} else if (next == 51) {
					at += (more.len + 2) * 4;
				} else {
					at += (more.len + 1) * 8;
				}
				next = more.next;
			}
			if (later)
				end = 0;
		}
	}
	if ((facts & FACT_PROTO) && steer_has_ports(proto) && at + sizeof(struct steer_ports) <= end) {
		struct steer_ports ports;

		if (STEER_LOAD(ctx, at, ports, frags) == 0) {
			facts |= FACT_PORTS;
			key->src_port = bpf_ntohs(ports.src);
			key->dst_port = bpf_ntohs(ports.dst);
		}
	}
	key->word[0] |= proto << KEY_PROTO_SHIFT | facts << KEY_FACTS_SHIFT;
	return 0;
}

__attribute__((noinline)) int steer_packet_frags(struct xdp_md *ctx, __u32 at, __u32 type)
{
	return steer_packet(ctx, at, type, 1);
}

__attribute__((noinline)) int steer_packet_plain(struct xdp_md *ctx, __u32 at, __u32 type)
{
	return steer_packet(ctx, at, type, 0);
}

/* Reads what a frame is into the key. */
static __always_inline void steer_describe(struct xdp_md *ctx, struct steer_key *key, int frags)
{
	__u32 at = ETH_HLEN;
	__u64 vlan = 0;
	__be16 type;

	__builtin_memset(key, 0, sizeof(*key));
	if (STEER_LOAD(ctx, ETH_HLEN - 2, type, frags))
		return;
	for (int i = 0; i < STEER_TAGS; i++) {
		struct steer_tag tag;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (STEER_LOAD(ctx, at, tag, frags))
			break;
		if (i == 0)
			vlan = (__u64)(bpf_ntohs(tag.tci) & 0xfff) << KEY_VLAN_SHIFT |
			       (__u64)FACT_TAGGED << KEY_FACTS_SHIFT;
		type = tag.proto;
		at += sizeof(tag);
	}
	key->word[0] = bpf_ntohs(type) | vlan;
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return;
	if (frags)
		steer_packet_frags(ctx, at, type);
	else
		steer_packet_plain(ctx, at, type);
}

/* Without branches, so that the verifier's work stays small however many rules there are. 0: it matches. */
static __always_inline __u64 steer_miss(const struct steer_rule *rule, const struct steer_key *key)
{
	__u64 miss = 0;

	for (int i = 0; i < STEER_WORDS; i++)
		miss |= (key->word[i] ^ rule->value[i]) & rule->mask[i];
	miss |= (key->src_port - rule->src_first) >> 63 | (rule->src_last - key->src_port) >> 63;
	miss |= (key->dst_port - rule->dst_first) >> 63 | (rule->dst_last - key->dst_port) >> 63;
	return miss;
}

/* Whether set `which` leaves the frame whose key is in memory with the host. */
__attribute__((noinline)) int steer_decide(__u32 which)
{
	const struct steer_rules *rules = bpf_map_lookup_elem(&steer_rules, &which);
	const struct steer_key *key = steer_key();

	if (!rules || !key)
		return 0;
	for (__u32 i = 0; i < STEER_RULES; i++) {
		if (i >= rules->count)
			break;
		if (!steer_miss(&rules->rule[i], key))
			return rules->rule[i].to_host != 0;
	}
	return rules->to_host != 0;
}

/* Whether the rules leave the frame with the host. */
static __always_inline int steer_to_host(struct xdp_md *ctx, __u32 chosen, int frags)
{
	struct steer_key *key = steer_key();

	if (!key)
		return 0;
	steer_describe(ctx, key, frags);
	return steer_decide(chosen - 1);
}

#endif
