//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The guard programs. The first passes the frames of guarded attachments between the two links that
 * each attachment has in the service's namespace: outside, a macvlan on the parent; inside, one end
 * of a veth pair, with the other end in the container. Frames that the container sends must match
 * its permit; all others are dropped and counted by reason. The owner of the container is root in
 * its namespace, and can send any bytes.
 *
 * It is one program for all attachments, on the ingress of both links of each. It drops a frame
 * from a link that is not in the map: the attachment of that link is being made or removed.
 *
 * The second program does the same on the egress of a parent, where containers have macvlans of
 * their own: frames that leave must match a permit, or carry one of the host's MACs. Frames between
 * macvlans of the same parent do not pass this program.
 *
 * Everything in this file also loads on 5.10.
 */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_ADDRS	4
#define MAX_GATEWAYS	4
#define MAX_PREFIXES	16	/* the number of addresses that the kernel configures on an interface */
#define PREFIX_NS	(600 * 1000000000ULL)

/* Why a frame was dropped: the index of its counter. guard.go has the names. */
enum reason {
	PASS,
	SHORT,		/* the frame ends within its headers */
	LONG,		/* longer than the MTU */
	TAG,		/* a VLAN tag, in metadata or in the bytes */
	SOURCE,		/* another source MAC */
	PROTOCOL,	/* neither IP nor ARP */
	ARP,		/* sender fields that do not match the permit */
	IPV4,		/* another source address */
	IPV6,
	ND,		/* a neighbour message that does not match the permit, or is malformed */
	ROUTER,		/* only routers send it: advertisements, redirects, queries, routing */
	DHCP,		/* only servers send it, or the service, to ask for leases */
	HIDDEN,		/* headers or fragments hide its type (RFC 7113), or its bytes may change */
	ECHO,		/* a frame of its own that was reflected */
	DESTINATION,	/* inbound, for another station */
	REASONS,
};

/* Flags of a guard. */
#define OUTBOUND	1	/* the frame comes from the inside link */
#define HOST		2	/* a MAC of the host on a parent: may send anything */
#define AUTOCONF	4	/* routers give addresses, too */
#define ASKS		8	/* the service asks DHCP servers from the container's own interface */

/* A prefix that a router gives, while the container uses an address of it. */
struct prefix {
	__u64 bits;	/* 0: none yet */
	__u64 until;	/* the time from which another one may have its place */
};

struct guard {
	__u32 to;		/* ifindex of the link that sends the frame on */
	__u32 flags;
	__u32 mtu;
	__u8 mac[6];
	__u16 zero;
	__u8 link_local[16];
	__u8 addrs[MAX_ADDRS][16];	/* IPv4 as ::ffff:a.b.c.d; :: for none */
	__u8 gateways[MAX_GATEWAYS][16];
	struct prefix prefixes[MAX_PREFIXES];
	__u8 attachment[16];	/* the attachment's id, for user space */
	__u32 pad;
	__u64 frames;
	__u64 bytes;
	__u64 dropped[REASONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, __u32);	/* ifindex of the link that received the frame */
	__type(value, struct guard);
} guards SEC(".maps");

/*
 * The permits for the egress of a parent. The entry with a zero MAC says that the parent is
 * guarded, and has the counters of all MACs without a permit.
 */
struct lease_key {
	__u32 parent;		/* ifindex */
	__u8 mac[6];
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct lease_key);
	__type(value, struct guard);
} leases SEC(".maps");

#define ETH_P_9100	0x9100	/* tag types in use before 802.1ad */
#define ETH_P_9200	0x9200

struct arp_body {
	__be32 kind;		/* Ethernet, IPv4 */
	__be16 lengths;
	__be16 op;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

struct ip4 {
	__u8 version_ihl, tos;
	__be16 len, id, frag;
	__u8 ttl, protocol;
	__be16 check;
	__u8 source[4], dest[4];
} __attribute__((packed));

struct ip6 {
	__be32 version_flow;
	__be16 len;
	__u8 next, hops;
	__u8 source[16], dest[16];
} __attribute__((packed));

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

static __always_inline bool same16(const void *a, const void *b)
{
	const __u32 *x = a, *y = b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]));
}

static __always_inline bool is_zero16(const void *a)
{
	const __u32 *x = a;

	return !(x[0] | x[1] | x[2] | x[3]);
}

/*
 * headlen returns the length of a frame's linear part. It is in assembly since the compiler would
 * load both fields with pointers of its own, which the verifier rejects.
 */
static __always_inline unsigned long headlen(struct __sk_buff *skb)
{
	unsigned long end, start;

	asm volatile("%0 = *(u32 *)(%2 + %3)\n"
		     "%1 = *(u32 *)(%2 + %4)\n"
		     : "=&r"(end), "=&r"(start)
		     : "r"(skb), "i"(offsetof(struct __sk_buff, data_end)), "i"(offsetof(struct __sk_buff, data)));
	return end - start;
}

/*
 * load reads bytes of a frame that cannot change any more. A frame from the ring of a packet socket
 * (PACKET_TX_RING) is in pages that its sender can still write to, until they are copied. The
 * linear part of the frame cannot be written to: load moves the bytes there first.
 */
static __always_inline long load(struct __sk_buff *skb, __u32 off, void *to, __u32 size)
{
	if (off + size > headlen(skb) && bpf_skb_pull_data(skb, off + size))
		return -1;
	return bpf_skb_load_bytes(skb, off, to, size);
}

/* The fields that are read. Their offsets are those of the running kernel (CO-RE). */
struct net_device {
	unsigned char *dev_addr;
} __attribute__((preserve_access_index));

struct sk_buff {
	struct net_device *dev;
	unsigned char *head, *data;
	__u16 csum_start, csum_offset;
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

#define CHECKSUM_PARTIAL	3	/* include/linux/skbuff.h */

/*
 * bytes_final reports whether the first bytes of a frame can no longer change. If a checksum is
 * still missing, the device that finally sends the frame writes it, or the kernel does for the
 * device. It is written where the sender has said, and any user of a packet socket can say that
 * (struct virtio_net_hdr).
 */
static __always_inline bool bytes_final(struct __sk_buff *skb, __u32 bytes)
{
	const struct sk_buff *b = (const void *)skb;
	__u64 head, data;

	if (BPF_CORE_READ_BITFIELD_PROBED(b, ip_summed) != CHECKSUM_PARTIAL)
		return true;
	head = (__u64)BPF_CORE_READ(b, head);
	data = (__u64)BPF_CORE_READ(b, data);
	return (__u64)BPF_CORE_READ(b, csum_start) + BPF_CORE_READ(b, csum_offset) >= data - head + bytes;
}

/*
 * contains6 reports whether an IPv6 address is in a list. Empty slots match nothing, and an IPv4
 * address of the list does not match its IPv4-mapped IPv6 address.
 */
static __always_inline bool contains6(const __u8 list[][16], const void *addr)
{
	const __u32 *word = addr;
	int i;

	if (!(word[0] | word[1]) && (word[2] == bpf_htonl(0xffff) || !(word[2] | word[3])))
		return false;
#pragma unroll
	for (i = 0; i < MAX_ADDRS; i++)
		if (same16(list[i], addr))
			return true;
	return false;
}

/*
 * keeps_prefix reports whether the container may use a prefix: it has a place for it. Each address is an
 * entry in the neighbour tables of other stations. Two processors that take one place at the same time
 * both pass a frame, but only one prefix keeps the place.
 */
static __noinline bool keeps_prefix(struct guard *g, __u64 bits)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 i, place = MAX_PREFIXES;

	if (!g)
		return false;
	for (i = 0; i < MAX_PREFIXES; i++) {
		if (g->prefixes[i].bits == bits) {
			place = i;
			break;
		}
		if (place == MAX_PREFIXES && g->prefixes[i].until < now)
			place = i;
	}
	if (place >= MAX_PREFIXES)
		return false;
	g->prefixes[place].bits = bits;
	g->prefixes[place].until = now + PREFIX_NS;
	return true;
}

/*
 * is_autoconf reports whether the container's kernel can have made an IPv6 address from a router's
 * prefix: it is global (2000::/3) or unique local (fc00::/7), and ends as the link-local address does,
 * with the EUI-64 of the MAC (RFC 4862 §5.5.3). Which prefix it is does not matter: no other station's
 * address ends so.
 */
static __always_inline bool is_autoconf(struct guard *g, const void *addr)
{
	const __u32 *a = addr, *local = (const __u32 *)g->link_local;
	const __u8 *first = addr;

	return g->flags & AUTOCONF && ((*first & 0xe0) == 0x20 || (*first & 0xfe) == 0xfc) &&
	       a[2] == local[2] && a[3] == local[3] && keeps_prefix(g, (__u64)a[0] << 32 | a[1]);
}

/* permits6 reports whether an IPv6 address is one of the permit's. */
static __always_inline bool permits6(struct guard *g, const void *addr)
{
	return contains6(g->addrs, addr) || same16(g->link_local, addr) || is_autoconf(g, addr);
}

/* contains4 reports whether an IPv4 address is in a list. addr is in network byte order. */
static __always_inline bool contains4(const __u8 list[][16], __u32 addr)
{
	int i;

#pragma unroll
	for (i = 0; i < MAX_ADDRS; i++) {
		const __u32 *word = (const __u32 *)list[i];

		if (word[2] == bpf_htonl(0xffff) && word[3] == addr && !(word[0] | word[1]))
			return true;
	}
	return false;
}

static __always_inline enum reason out_arp(struct __sk_buff *skb, const struct guard *g)
{
	struct arp_body a;
	__u32 sender, target;

	if (load(skb, ETH_HLEN, &a, sizeof(a)))
		return SHORT;
	if (a.kind != bpf_htonl(1 << 16 | ETH_P_IP) || a.lengths != bpf_htons(ETH_ALEN << 8 | 4) ||
	    (a.op != bpf_htons(1) && a.op != bpf_htons(2)) || !same_mac(a.sender_mac, g->mac))
		return ARP;
	__builtin_memcpy(&sender, a.sender, 4);
	if (contains4(g->addrs, sender))
		return PASS;
	/*
	 * A probe (RFC 5227 §2.1.1) may ask for the permit's own addresses and gateways. For
	 * another station's address it would look like a conflict to that station.
	 */
	__builtin_memcpy(&target, a.target, 4);
	if (!sender && a.op == bpf_htons(1) && (contains4(g->addrs, target) || contains4(g->gateways, target)))
		return PASS;
	return ARP;
}

/*
 * Protocols with which routers agree on which one of them forwards: RIP, RIPng, HSRP, GLBP by their
 * ports, EIGRP, OSPF, PIM and VRRP by their protocols. A station that announces the best values
 * receives the traffic of the others.
 */
static __always_inline bool is_routers_port(__be16 port)
{
	return port == bpf_htons(520) || port == bpf_htons(521) || port == bpf_htons(1985) ||
	       port == bpf_htons(2029) || port == bpf_htons(3222);
}

static __always_inline bool is_routers_protocol(__u8 protocol)
{
	return protocol == 88 || protocol == 89 || protocol == 103 || protocol == 112;
}

/*
 * ports returns DHCP for the UDP ports of a DHCP server's answer, and of a client's message: a container could
 * give its lease back and use the address on, or take all leases of a server. It returns ROUTER for the ports of
 * routers.
 */
static __always_inline enum reason ports(struct __sk_buff *skb, const struct guard *g, __u32 off,
					 __u16 server, __u16 client)
{
	__be16 p[2];

	if (load(skb, off, p, sizeof(p)))
		return SHORT;
	if (p[0] == bpf_htons(server) || p[1] == bpf_htons(client) ||
	    (p[1] == bpf_htons(server) && !(g->flags & ASKS)))
		return DHCP;
	return is_routers_port(p[1]) ? ROUTER : PASS;
}

#define FRAG_OFFSET	0x1fff

/*
 * All ports and types that are checked are in the first 8 bytes of the payload, so in the fragment
 * with offset 0: no other fragment can overwrite them (RFC 791 §3.2).
 */
static __always_inline enum reason out_ip4(struct __sk_buff *skb, const struct guard *g, __u32 *checked)
{
	struct ip4 h;
	__u32 source, off;
	__u8 type;

	if (load(skb, ETH_HLEN, &h, sizeof(h)))
		return SHORT;
	__builtin_memcpy(&source, h.source, 4);
	off = (h.version_ihl & 0xf) * 4;
	if (h.version_ihl >> 4 != 4 || off < sizeof(h) || !contains4(g->addrs, source))
		return IPV4;
	if (is_routers_protocol(h.protocol))
		return ROUTER;
	off += ETH_HLEN;
	if (h.protocol != IPPROTO_ICMP && h.protocol != IPPROTO_IGMP)
		*checked = off + 4; /* the ports */
	if (h.frag & bpf_htons(FRAG_OFFSET))
		return PASS;
	if (h.protocol == IPPROTO_UDP)
		return ports(skb, g, off, 67, 68);
	if (h.protocol != IPPROTO_ICMP && h.protocol != IPPROTO_IGMP)
		return PASS;
	if (load(skb, off, &type, 1))
		return SHORT;
	if (h.protocol == IPPROTO_IGMP)
		return type == 0x11 ? ROUTER : PASS; /* query */
	return type == 5 || type == 9 ? ROUTER : PASS; /* redirect, advertisement */
}

/* Types of ICMPv6, and options of ND. */
#define MLD_QUERY	130
#define MLD_REPORT	131
#define MLD_DONE	132
#define ND_ROUTER	133	/* solicitation */
#define ND_SOLICIT	135
#define ND_ADVERT	136
#define MLD2_REPORT	143
#define OPT_SOURCE	1
#define OPT_TARGET	2
#define OPT_NONCE	14	/* RFC 7527, which Linux sends in DAD */

/*
 * options checks the options of an ND message, from off to end. It accepts a link-layer address of
 * the kind that fits the message, if it is that of the permit, and a nonce. Other options do not
 * belong in these messages (RFC 4861 §4).
 */
static __always_inline enum reason options(struct __sk_buff *skb, const struct guard *g,
					   __u32 off, __u32 end, __u8 kind)
{
	__u8 o[8];
	int i;

#pragma unroll
	for (i = 0; i < 3; i++) {
		if (off == end)
			return PASS;
		if (off + 8 > end || load(skb, off, o, sizeof(o)))
			return ND;
		if (o[1] != 1)
			return ND;
		if (o[0] != OPT_NONCE && (o[0] != kind || !same_mac(o + 2, g->mac)))
			return ND;
		off += 8;
	}
	return off == end ? PASS : ND;
}

static __always_inline enum reason out_icmp6(struct __sk_buff *skb, struct guard *g,
					     const struct ip6 *h, __u32 off, bool after_options)
{
	__u32 end = ETH_HLEN + sizeof(*h) + bpf_ntohs(h->len);
	bool no_source = is_zero16(h->source);
	__u8 m[24];

	if (end > skb->len)
		return SHORT;
	if (load(skb, off, m, 8))
		return SHORT;
	if (m[0] == MLD_REPORT || m[0] == MLD_DONE || m[0] == MLD2_REPORT)
		return PASS;
	/* Only MLD follows a router alert. */
	if (after_options)
		return HIDDEN;
	switch (m[0]) {
	case 1: case 2: case 3: case 4: case 128: case 129:
		return no_source ? IPV6 : PASS;
	case ND_ROUTER:
		if (m[1] || h->hops != 255)
			return ND;
		return options(skb, g, off + 8, end, no_source ? 0 : OPT_SOURCE);
	case ND_SOLICIT:
	case ND_ADVERT:
		break;
	default:
		return ROUTER;
	}
	if (m[1] || h->hops != 255 || load(skb, off, m, sizeof(m)))
		return ND;
	if (m[0] == ND_ADVERT) {
		if (no_source || !permits6(g, m + 8))
			return ND;
		return options(skb, g, off + 24, end, OPT_TARGET);
	}
	if (!no_source)
		return options(skb, g, off + 24, end, OPT_SOURCE);
	/* DAD, and a solicitation for the gateway from a container that has no address yet. */
	if (!permits6(g, m + 8) && !contains6(g->gateways, m + 8))
		return ND;
	return options(skb, g, off + 24, end, 0);
}

/*
 * out_ip6 passes only packets that are visibly harmless. The header of the fragment at offset 0
 * gives the type of the whole packet (RFC 8200 §4.5). No fragment may be of ICMPv6, or announce yet
 * another header: the reassembled message could then be of a type that no fragment shows.
 */
static __always_inline enum reason out_ip6(struct __sk_buff *skb, struct guard *g, __u32 *checked)
{
	__u32 off = ETH_HLEN + sizeof(struct ip6);
	struct ip6 h;
	__u8 x[8];

	if (load(skb, ETH_HLEN, &h, sizeof(h)))
		return SHORT;
	if ((h.version_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
		return IPV6;
	if (!permits6(g, h.source) &&
	    !(is_zero16(h.source) && (h.next == IPPROTO_ICMPV6 || h.next == IPPROTO_HOPOPTS)))
		return IPV6;
	if (h.next != IPPROTO_ICMPV6 && h.next != IPPROTO_HOPOPTS && h.next != IPPROTO_FRAGMENT)
		*checked = off + 4; /* the ports */
	switch (h.next) {
	case IPPROTO_ICMPV6:
		return out_icmp6(skb, g, &h, off, false);
	case IPPROTO_UDP:
		return ports(skb, g, off, 547, 546);
	case IPPROTO_TCP: case IPPROTO_SCTP: case IPPROTO_UDPLITE: case IPPROTO_ESP:
	case IPPROTO_GRE: case IPPROTO_IPIP: case IPPROTO_IPV6: case IPPROTO_NONE:
		return PASS;
	case IPPROTO_HOPOPTS:
		if (load(skb, off, x, sizeof(x)))
			return SHORT;
		if (x[0] != IPPROTO_ICMPV6 || x[1])
			return HIDDEN;
		return out_icmp6(skb, g, &h, off + 8, true);
	case IPPROTO_FRAGMENT:
		if (load(skb, off, x, sizeof(x)))
			return SHORT;
		if (x[0] == IPPROTO_TCP || x[0] == IPPROTO_SCTP || x[0] == IPPROTO_UDPLITE)
			return PASS;
		if (x[0] != IPPROTO_UDP)
			return HIDDEN;
		/* The offset is in units of 8 bytes, in the upper 13 bits. */
		return x[2] || x[3] & 0xf8 ? PASS : ports(skb, g, off + 8, 547, 546);
	}
	return HIDDEN;
}

static __always_inline bool is_tag(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) ||
	       proto == bpf_htons(ETH_P_9100) || proto == bpf_htons(ETH_P_9200);
}

/* The kernel does not limit unsegmented buffers, and the container sets its own MTU. */
static __always_inline bool too_long(struct __sk_buff *skb, const struct guard *g)
{
	if (skb->gso_size)
		return skb->gso_size + 40 > g->mtu;
	return skb->len > g->mtu + ETH_HLEN;
}

static __always_inline enum reason outbound(struct __sk_buff *skb, struct guard *g, const struct ethhdr *eth)
{
	/* No host leaves the checksum of ICMP, fragments and ARP to the device. */
	__u32 checked = skb->len;
	enum reason why = PROTOCOL;

	if (!same_mac(eth->h_source, g->mac))
		return SOURCE;
	if (too_long(skb, g))
		return LONG;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		why = out_ip4(skb, g, &checked);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		why = out_ip6(skb, g, &checked);
	else if (eth->h_proto == bpf_htons(ETH_P_ARP))
		why = out_arp(skb, g);
	return why == PASS && !bytes_final(skb, checked) ? HIDDEN : why;
}

/* solicited reports whether a MAC is that of addr's solicited-node group. */
static __always_inline bool solicited(const __u8 *mac, const __u8 *addr)
{
	return mac[0] == 0x33 && mac[1] == 0x33 && mac[2] == 0xff &&
	       mac[3] == addr[13] && mac[4] == addr[14] && mac[5] == addr[15];
}

static __always_inline enum reason inbound(const struct guard *g, const struct ethhdr *eth)
{
	const __u8 *to = eth->h_dest;
	int i;

	if (same_mac(eth->h_source, g->mac))
		return ECHO;
	if (same_mac(to, g->mac) || (to[0] & to[1] & to[2] & to[3] & to[4] & to[5]) == 0xff)
		return PASS;
	/* All nodes. */
	if (to[0] == 0x33 && to[1] == 0x33 && !(to[2] | to[3] | to[4]) && to[5] == 1)
		return PASS;
	if (solicited(to, g->link_local)) /* and of the addresses that routers give */
		return PASS;
#pragma unroll
	for (i = 0; i < MAX_ADDRS; i++)
		if (solicited(to, g->addrs[i]) && !is_zero16(g->addrs[i]))
			return PASS;
	return DESTINATION;
}

SEC("tc")
int pass(struct __sk_buff *skb)
{
	__u32 from = skb->ifindex;
	struct guard *g = bpf_map_lookup_elem(&guards, &from);
	enum reason why = PASS;
	struct ethhdr eth;

	if (!g)
		return TC_ACT_SHOT;
	if (load(skb, 0, &eth, sizeof(eth)))
		why = SHORT;
	else if (skb->vlan_present || is_tag(eth.h_proto))
		why = TAG;
	else if (g->flags & OUTBOUND)
		why = outbound(skb, g, &eth);
	else
		why = inbound(g, &eth);
	if (why != PASS) {
		if (why < REASONS)
			__sync_fetch_and_add(&g->dropped[why], 1);
		return TC_ACT_SHOT;
	}
	__sync_fetch_and_add(&g->frames, skb->gso_segs ?: 1);
	__sync_fetch_and_add(&g->bytes, skb->len);
	return bpf_redirect(g->to, 0);
}

/*
 * from_parent reports whether a frame has the parent's own MAC, as the kernel has it now: the
 * administrator can change it, and so does a bond that fails over.
 */
static __always_inline bool from_parent(struct __sk_buff *skb, const struct ethhdr *eth)
{
	const struct sk_buff *b = (const void *)skb;
	__u8 mac[ETH_ALEN];

	return !bpf_probe_read_kernel(mac, sizeof(mac), BPF_CORE_READ(b, dev, dev_addr)) &&
	       same_mac(eth->h_source, mac);
}

SEC("tc")
int parent(struct __sk_buff *skb)
{
	struct lease_key key = { .parent = skb->ifindex };
	struct guard *all = bpf_map_lookup_elem(&leases, &key);
	struct guard *g = NULL;
	enum reason why = PASS;
	struct ethhdr eth;

	if (!all)
		return TC_ACT_UNSPEC;
	if (load(skb, 0, &eth, sizeof(eth))) {
		why = SHORT;
	} else {
		__builtin_memcpy(key.mac, eth.h_source, sizeof(key.mac));
		g = bpf_map_lookup_elem(&leases, &key);
		if (!g && from_parent(skb, &eth))
			return TC_ACT_UNSPEC;
		if (!g)
			why = SOURCE;
		else if (g->flags & HOST)
			return TC_ACT_UNSPEC;
		else if (skb->vlan_present || is_tag(eth.h_proto))
			why = TAG;
		else
			why = outbound(skb, g, &eth);
	}
	if (!g)
		g = all;
	if (why == PASS) {
		__sync_fetch_and_add(&g->frames, skb->gso_segs ?: 1);
		__sync_fetch_and_add(&g->bytes, skb->len);
		return TC_ACT_UNSPEC;
	}
	if (why < REASONS)
		__sync_fetch_and_add(&g->dropped[why], 1);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
