//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs of a trunk. They watch the tags of frames from leased MACs, the stations
 * that answer for the endpoints' gateways, the stations that claim leased addresses, and
 * the VLANs from which frames arrive. Each trunk has its own pair of programs and its own
 * set of maps, so no key contains the trunk.
 *
 * Every frame continues to the next program in the chain, with two exceptions. The first
 * is a frame of a leased MAC that would leave with tags other than its network's: a
 * container can write a tag by hand and so hop into another VLAN, and nothing else
 * prevents that. The second is a container's answer to its own host's probe for an
 * address in use: see answers_own_probe.
 *
 * The ingress of a trunk sees more than the frames from the wire. Unicast between two
 * macvlans in bridge mode on the trunk itself passes there, too (macvlan_queue_xmit,
 * dev_forward_skb), and a switch port may send a frame back to its sender. A frame with a
 * MAC of this host as its source therefore proves nothing about the VLAN. If the source
 * is an endpoint's MAC and the destination is a group, either a frame of this host was
 * returned, or another station has the same MAC: see note_own_source.
 *
 * The expensive steps are avoided where possible: a frame is looked up once, by its MAC;
 * an address is looked up only if a hint says that it may be leased or a gateway's; the
 * clock is read once per jiffy unless a probe is pending; and a repeated event is counted
 * without the lock. BenchmarkProgram measures the cost that remains.
 *
 * Everything here also loads on Linux 5.10: no atomic operation returns the old value, no
 * kernel types are used, and loops are unrolled.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_TAGS	3	/* one in metadata and two in bytes; a fourth tag is ignored */
#define MAX_ADDRS	4
#define MAX_GATEWAYS	4
#define RECENT		8	/* power of two */
#define VLANS		4096
#define HINTS		4096	/* power of two */
#define LAST_CLAIMS	64	/* power of two */
#define ROW_EVENTS	4	/* power of two */
#define ENDPOINT_ROWS	128	/* power of two; history rows for events of endpoints */
#define UNLEASED_ROWS	32	/* power of two; history rows after those, for unleased MACs */
#define SENT		1024	/* power of two */

/*
 * RETURN_TIME is the longest time between a broadcast or multicast frame and its return.
 * HAIRPIN_TIME is how long a port that has returned a frame of the host is expected to
 * return further frames. Both are in ns.
 */
#define RETURN_TIME	500000000ULL
#define HAIRPIN_TIME	60000000000ULL

/*
 * A tag is TPID << 16 | VID in host order, 0 for none. The first tag of a sighting also
 * has the bit IN_PACKET, which no VID uses, if the tag was in the packet's bytes.
 */
#define VID_MASK	0x0fff
#define IN_PACKET	0x8000
#define ANY_TAGS	0xffffffff

/* Flags of an endpoint. */
#define ENFORCE		1
#define SHARED		2	/* placeholder: this MAC's endpoints are in "shared" */

/* Flags of an address. It may be leased and a gateway's at the same time. */
#define LEASED		1	/* to holder */
#define GATEWAY		2	/* endpoints have it as their gateway */
#define TENTATIVE	4	/* holder does not use it yet */

/* Kinds of a MAC in the map "locals". */
#define PARENT		1	/* the trunk, or a parent on it */
#define SIBLING		2	/* a macvlan on the trunk that is not an endpoint */

/* linux/if_arp.h defines these, but it includes headers of the C library. */
#define ARPHRD_ETHER	1
#define ARPOP_REQUEST	1
#define ARPOP_REPLY	2

#define ND_SOLICIT	135
#define ND_ADVERT	136
#define ND_OPT_SOURCE	1
#define ND_OPT_TARGET	2

#define PROBE_MARK	0x6c79	/* also in hook/ether/mac.go */

struct sighting {
	__u64 ns;		/* now() */
	__u32 tag[MAX_TAGS];	/* outermost first */
	__u32 count;
};

struct gateway {
	__u8 addr[16];
	struct sighting asked;
	struct sighting reply;	/* to this endpoint's MAC */
	__u64 previous_ns;
	__u8 mac[6];
	__u8 previous_mac[6];	/* answered before mac; its last answer was at previous_ns */
	__u32 zero;
	__u64 since;		/* start of the watch; only user space uses it */
};

struct mac_key {
	__u8 mac[6];
	__u16 zero;
};

struct endpoint_key {
	__u32 outer;
	__u32 inner;
	__u8 mac[6];
	__u16 zero;
};

struct endpoint {
	struct bpf_spin_lock lock; /* protects gateways[] */
	__u32 flags;
	__u32 outer;
	__u32 inner;
	/* Updated without the lock. */
	__u64 out_frames;
	__u64 out_bytes;
	__u64 in_frames;
	__u64 in_bytes;
	__u64 out_wrong;
	__u64 in_wrong;
	__u64 dropped;
	__u64 duplicate_ns;	/* time of the last frame of another station with this MAC */
	__u64 returned_ns;	/* time of the last frame of this endpoint that was returned */
	__u32 duplicates;
	__u32 returned;
	struct gateway gateways[MAX_GATEWAYS];
	/* Only user space uses the rest. */
	__u8 addrs[MAX_ADDRS][16];
	__u8 attachment[16];
	__u64 netns;
};

struct address_key {
	__u32 outer;
	__u32 inner;
	__u8 addr[16];		/* IPv4 as ::ffff:a.b.c.d */
};

struct answer {
	__u64 ns;
	__u32 tag[MAX_TAGS];
	__u8 mac[6];
	__u16 zero;
};

/*
 * The key with ANY_TAGS is for a gateway's address under tags that no endpoint expects.
 * The ring holds only answers that were sent to all nodes, because such a frame does not
 * show which endpoint it answers. Unicast answers are kept in the endpoint.
 */
struct address {
	struct bpf_spin_lock lock;
	__u32 flags;
	__u8 holder[6];
	__u8 claimant[6];
	__u32 claims;
	__u64 claimed_ns;
	__u64 prober_ns;
	__u8 prober[6];		/* has probed for the address (RFC 5227, RFC 4862) */
	__u16 zero;
	__u32 probes;
	__u32 replies;
	__u32 zero2;
	struct answer recent[RECENT];
};

/* Counts only frames from the wire: frames with a source MAC of this host do not count. */
struct vlan {
	__u64 frames;
	__u64 ns;		/* of the first frame within the jiffy */
	__u64 jiffy;
	__u8 mac[6];		/* source of that frame */
	__u16 zero;
};

/* Kinds of events, in the same order as in history.go. */
enum kind {
	CONFLICT = 1,		/* mac claimed addr, which is leased to endpoint_mac */
	WRONG_OUT,		/* endpoint_mac sent a frame with wrong tags */
	WRONG_OUT_DROPPED,	/* the same, and the frame was dropped */
	WRONG_IN,		/* mac sent endpoint_mac a frame with wrong tags */
	MOVED,			/* mac answered for gateway addr, previous_mac before */
	UNLEASED,		/* mac sent a frame and is not an endpoint's */
	DUPLICATE,		/* a frame from the wire has an endpoint's MAC as its source */
	RETURNED,		/* a frame that mac, of this host, had sent was returned */
};

/* Identifies an event: frames for which all bytes are equal are counted as one event. */
struct event_key {
	__u32 kind;
	__u32 tag[MAX_TAGS];
	__u8 addr[16];
	__u8 mac[6];
	__u8 endpoint_mac[6];
	__u8 previous_mac[6];
	__u16 zero[3];
};

struct event {
	struct event_key key;
	__u64 first;	/* now() */
	__u64 last;
	__u64 frames;
};

/*
 * The last events of one row, which holds the events of the MACs or addresses that hash
 * to it. A station that causes many events for one address therefore displaces only the
 * events in that row. A new event replaces the oldest one.
 */
struct history_row {
	struct bpf_spin_lock lock;
	__u32 next;
	struct event events[ROW_EVENTS];
};

/*
 * The time of the last clock reading. mix = ns ^ jiffy proves that the pair belongs
 * together, in whatever order another CPU sees the two writes.
 */
struct clock {
	__u64 ns;
	__u64 mix;
	__u64 exact_until;	/* a probe may be pending until then; set by user space */
};

/* State of the switch port. */
struct port {
	__u64 returned_ns;	/* when it last returned a frame of a parent */
};

/*
 * Counts, for all addresses that hash to one slot, the leased ones and the gateways', and
 * for all MACs that hash to it, the endpoints' and those in "locals".
 */
struct hint {
	__u32 leased;
	__u32 asked;
	__u32 macs;
	__u32 zero;
};

/*
 * The ends of a MAC's watch, in ns. A container that is restarted often sends a last frame
 * at each of them, all of which become one event: between first and last, it sent no other
 * frames without a watch.
 */
struct ends {
	__u64 first;
	__u64 last;
};

/* A broadcast or multicast frame that this host has sent, and its time. */
struct sent {
	__u64 hash;
	__u64 ns;
};

/*
 * The last claim that was processed. If the same claim repeats at the same time, only its
 * count changes, so it needs no lookups. While a probe is pending, no two times are
 * equal.
 */
struct last_claim {
	__u64 ns;
	struct event_key key;	/* kind is 0 unless it was a conflict */
	__u32 to_all;
	__u32 zero;
};

/*
 * The endpoint of a MAC. If several endpoints have the MAC, under different tags, their
 * rows are in "shared", and the row here names the first of them, which is charged with
 * frames that have a wrong tag.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct mac_key);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint);
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 32768);
	__type(key, struct address_key);
	__type(value, struct address);
} addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HINTS);
	__type(key, __u32);
	__type(value, struct hint);
} hints SEC(".maps");

/*
 * MACs of this host on the trunk that are not endpoints'. User space maintains the map. The
 * value is PARENT or SIBLING.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct mac_key);
	__type(value, __u32);
} locals SEC(".maps");

/* The last broadcast and multicast frames of endpoints and parents, by hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SENT);
	__type(key, __u32);
	__type(value, struct sent);
} sent SEC(".maps");

/* Per processor: two concurrent writes to one row could form a claim that no station made. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LAST_CLAIMS);
	__type(key, __u32);
	__type(value, struct last_claim);
} last_claims SEC(".maps");

/* Events, read by any number of processes. The newest events of each row are kept. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINT_ROWS + UNLEASED_ROWS);
	__type(key, __u32);
	__type(value, struct history_row);
} history SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
} times SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct port);
} port SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, VLANS);
	__type(key, __u32);
	__type(value, struct vlan);
} vlans SEC(".maps");

/*
 * MACs that are no longer watched, and when that ended: a container that ends may still
 * send a frame or two, which are not reported as frames of an unleased MAC. Only user space
 * uses this map.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct mac_key);
	__type(value, struct ends);
} former SEC(".maps");

/*
 * The device of the trunk. The kernel empties the slot when the device is deleted
 * (kernel/bpf/devmap.c, dev_map_notification), and does not fill it again when another
 * device gets the same ifindex. Only user space uses this map.
 */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} device SEC(".maps");

/* The parsed headers of a frame. */
struct frame {
	__u32 tag[MAX_TAGS];
	__u32 off;		/* of the first byte after the tags */
	__u32 frames;		/* number of frames on the wire (GSO, GRO) */
	__u16 proto;		/* network order */
	__u16 in_packet;
};

/* A claim that a frame makes on an address. */
struct claim {
	__u64 addr[2];
	__u8 mac[6];		/* claims to hold addr */
	__u8 answer;		/* ARP reply or advertisement */
	__u8 probe;		/* mac does not use addr yet: it asks whether it may */
};

/*
 * get_bytes returns the frame from its Ethernet header on, with len readable bytes, or
 * NULL if it is shorter. It pulls the data of the rare frame that has its headers in
 * fragments: the sender chooses where fragments begin, so those headers must be checked,
 * too.
 */
static __always_inline unsigned char *get_bytes(struct __sk_buff *skb, __u32 len)
{
	unsigned char *data;

	/* Otherwise clang keeps &skb->data_end for later, which the verifier rejects. */
	asm volatile("" : "+r"(skb));
	data = (void *)(long)skb->data;
	if (data + len <= (unsigned char *)(long)skb->data_end)
		return data;
	if (bpf_skb_pull_data(skb, len))
		return NULL;
	data = (void *)(long)skb->data;
	if (data + len > (unsigned char *)(long)skb->data_end)
		return NULL;
	return data;
}

static __always_inline void copy_mac(__u8 *to, const __u8 *from)
{
	*(__u32 *)to = *(__u32 *)from;
	*(__u16 *)(to + 4) = *(__u16 *)(from + 4);
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

/*
 * now returns the time of bpf_ktime_get_ns(): exact while a probe is pending, otherwise
 * up to one jiffy old. Reading the clock costs as much as the rest of the program.
 */
static __always_inline __u64 now(void)
{
	__u64 jiffy = bpf_jiffies64();
	__u32 key = 0;
	struct clock *c = bpf_map_lookup_elem(&times, &key);
	__u64 ns;

	if (!c)
		return bpf_ktime_get_ns();
	ns = *(volatile __u64 *)&c->ns;
	if ((c->mix ^ ns) == jiffy && ns > c->exact_until)
		return ns;
	ns = bpf_ktime_get_ns();
	c->ns = ns;
	c->mix = ns ^ jiffy;
	return ns;
}

static __always_inline void add_tag(struct frame *f, __u32 tag, bool in_packet)
{
	if (!f->tag[0]) {
		f->tag[0] = tag;
		f->in_packet = in_packet;
	} else if (!f->tag[1]) {
		f->tag[1] = tag;
	} else if (!f->tag[2]) {
		f->tag[2] = tag;
	}
}

/*
 * is_tpid also accepts the TPIDs that some switches used for outer tags before 802.1ad
 * was assigned one. The kernel never writes them, but a container may write them by hand.
 */
static __always_inline bool is_tpid(__u16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) ||
	       proto == bpf_htons(ETH_P_QINQ1) || proto == bpf_htons(ETH_P_QINQ2) ||
	       proto == bpf_htons(ETH_P_QINQ3);
}

/*
 * read_tags reads the tag in metadata and the tags in the bytes. On ingress, VID 0 is a
 * priority tag and no VLAN; on egress such a tag was written by hand. A truncated tag
 * counts as VID 0, so that such a frame of a known sender does not pass.
 */
static __always_inline void read_tags(struct __sk_buff *skb, struct frame *f, bool inbound)
{
	__u16 tci;
	int i;

	if (skb->vlan_present) {
		tci = skb->vlan_tci & VID_MASK;
		if (tci || !inbound)
			add_tag(f, (__u32)bpf_ntohs(skb->vlan_proto) << 16 | tci, false);
	}
	f->off = ETH_HLEN;
#pragma unroll
	for (i = 0; i < MAX_TAGS; i++) {
		unsigned char *data;
		__u16 tpid = f->proto;

		if (!is_tpid(tpid))
			break;
		f->proto = 0;
		f->off += 4;
		tci = 0;
		data = get_bytes(skb, f->off);
		if (data) {
			tci = bpf_ntohs(*(__be16 *)(data + f->off - 4)) & VID_MASK;
			f->proto = *(__u16 *)(data + f->off - 2);
		}
		if (tci || !inbound)
			add_tag(f, (__u32)bpf_ntohs(tpid) << 16 | tci, true);
	}
}

static __always_inline void map_ip4(__u64 *addr, const unsigned char *ip4)
{
	__u32 *word = (__u32 *)addr;

	addr[0] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = *(__u32 *)ip4;
}

static __always_inline void copy_ip6(__u64 *addr, const unsigned char *ip6)
{
	addr[0] = *(__u64 *)ip6;
	addr[1] = *(__u64 *)(ip6 + 8);
}

/*
 * get_body returns len bytes after the tags. The offset is one of four values; the mask
 * tells that to the verifier of Linux 5.10, which forgets a bound when it spills the
 * register.
 */
static __always_inline unsigned char *get_body(struct __sk_buff *skb, struct frame *f, __u32 len)
{
	unsigned char *data;
	__u32 off = f->off;

	asm volatile("%0 &= 31" : "+r"(off));
	data = get_bytes(skb, off + len);
	return data ? data + off : NULL;
}

#define ARP_LEN		28
#define ND_LEN		(sizeof(struct ipv6hdr) + 24)

/* get_arp returns an ARP body for IPv4 over Ethernet (RFC 826), or NULL. */
static __always_inline unsigned char *get_arp(struct __sk_buff *skb, struct frame *f)
{
	unsigned char *p = get_body(skb, f, ARP_LEN);

	if (!p || *(__be32 *)p != bpf_htonl(ARPHRD_ETHER << 16 | ETH_P_IP) ||
	    *(__be16 *)(p + 4) != bpf_htons(ETH_ALEN << 8 | 4))
		return NULL;
	return p;
}

/*
 * get_nd returns an IPv6 header that is followed by a neighbour solicitation or
 * advertisement (RFC 4861 §7.1), or NULL. It does not search behind extension headers:
 * fragmented ND is invalid (RFC 6980), and no implementation sends ND with other
 * extension headers.
 */
static __always_inline unsigned char *get_nd(struct __sk_buff *skb, struct frame *f)
{
	unsigned char *p = get_body(skb, f, 8);

	if (!p || p[6] != IPPROTO_ICMPV6)
		return NULL;
	p = get_body(skb, f, ND_LEN);
	if (!p || p[7] != 255 || (p[40] != ND_SOLICIT && p[40] != ND_ADVERT) || p[41])
		return NULL;
	return p;
}

/*
 * read_question reports whether an outbound frame asks for the MAC of an address, and
 * sets addr to that address.
 */
static __always_inline bool read_question(struct __sk_buff *skb, struct frame *f, __u64 *addr)
{
	unsigned char *p;

	if (f->proto == bpf_htons(ETH_P_ARP)) {
		p = get_arp(skb, f);
		if (!p || *(__be16 *)(p + 6) != bpf_htons(ARPOP_REQUEST))
			return false;
		map_ip4(addr, p + 24);
		return true;
	}
	if (f->proto == bpf_htons(ETH_P_IPV6)) {
		p = get_nd(skb, f);
		if (!p || p[40] != ND_SOLICIT)
			return false;
		copy_ip6(addr, p + 48);
		return true;
	}
	return false;
}

/*
 * arp_claim reads the claim of an ARP frame. Every ARP frame claims its sender address,
 * except a probe: its sender wants to take the target address (RFC 5227 §2.1.1).
 */
static __always_inline bool arp_claim(struct __sk_buff *skb, struct frame *f, struct claim *c)
{
	unsigned char *p = get_arp(skb, f);

	if (!p)
		return false;
	c->answer = *(__be16 *)(p + 6) == bpf_htons(ARPOP_REPLY);
	copy_mac(c->mac, p + 8);
	c->probe = !*(__be32 *)(p + 14) && !c->answer;
	map_ip4(c->addr, *(__be32 *)(p + 14) ? p + 14 : p + 24);
	return true;
}

/*
 * nd_claim reads the claim of an ND frame. An advertisement claims its target. A
 * solicitation claims its source, or its target if the source is :: (RFC 4862 §5.4.3).
 * The MAC is that of the first option; without one it is the frame's source, which the
 * caller has set.
 */
static __always_inline bool nd_claim(struct __sk_buff *skb, struct frame *f, struct claim *c)
{
	unsigned char *p = get_nd(skb, f);
	__u8 option = ND_OPT_TARGET;

	if (!p)
		return false;
	c->answer = p[40] == ND_ADVERT;
	copy_ip6(c->addr, p + 8);
	c->probe = !c->answer && !(c->addr[0] | c->addr[1]);
	if (c->answer || c->probe)
		copy_ip6(c->addr, p + 48);
	if (!c->answer)
		option = ND_OPT_SOURCE;
	p = get_body(skb, f, ND_LEN + 8);
	if (p && p[64] == option && p[65] == 1)
		copy_mac(c->mac, p + 66);
	return true;
}

static __always_inline bool same_addr(const __u8 *a, const __u64 *b)
{
	return ((__u64 *)a)[0] == b[0] && ((__u64 *)a)[1] == b[1];
}

static __always_inline struct gateway *find_gateway(struct endpoint *e, const __u64 *addr)
{
	int i;

#pragma unroll
	for (i = 0; i < MAX_GATEWAYS; i++)
		if (same_addr(e->gateways[i].addr, addr))
			return &e->gateways[i];
	return NULL;
}

static __always_inline void set_tags(__u32 *tag, const struct frame *f)
{
	tag[0] = f->tag[0] | (f->in_packet ? IN_PACKET : 0);
	tag[1] = f->tag[1];
	tag[2] = f->tag[2];
}

static __always_inline bool same_tags(const __u32 *tag, const struct frame *f)
{
	return tag[0] == (f->tag[0] | (f->in_packet ? IN_PACKET : 0)) &&
	       tag[1] == f->tag[1] && tag[2] == f->tag[2];
}

static __always_inline bool has_tags(__u32 outer, __u32 inner, const struct frame *f)
{
	return outer == f->tag[0] && inner == f->tag[1] && !f->tag[2];
}

/*
 * find_endpoint returns the endpoint of a MAC, and reports in tags_match whether the frame
 * has the endpoint's tags. A frame with three tags matches no endpoint.
 */
static __always_inline struct endpoint *find_endpoint(const struct mac_key *mac,
						      const struct frame *f, bool *tags_match)
{
	struct endpoint *first = bpf_map_lookup_elem(&endpoints, mac), *e;
	struct endpoint_key key = {
		.outer = f->tag[0],
		.inner = f->tag[1],
	};

	*tags_match = first && has_tags(first->outer, first->inner, f);
	if (!first || !(first->flags & SHARED))
		return first;
	copy_mac(key.mac, mac->mac);
	e = f->tag[2] ? NULL : bpf_map_lookup_elem(&shared, &key);
	*tags_match = e;
	if (e)
		return e;
	key.outer = first->outer;
	key.inner = first->inner;
	return bpf_map_lookup_elem(&shared, &key);
}

#define MIX(h)	((h) * 0x9e3779b97f4a7c15ULL)

/* row_of_mac returns the history row for the events of an endpoint's MAC. */
static __always_inline __u32 row_of_mac(const __u8 *mac)
{
	return MIX(*(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32) >> 57;
}

/*
 * same_event compares all fields except those that are always zero in that kind of event.
 */
static __always_inline bool same_event(const struct event_key *a, const struct event_key *b, bool of_address)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	if (x[0] != y[0] || x[1] != y[1] || x[4] != y[4] || x[5] != y[5])
		return false;
	return !of_address || (x[2] == y[2] && x[3] == y[3] && x[6] == y[6]);
}

/* note_event records an event. A repeated event is counted without the lock. */
static __always_inline void note_event(__u32 row, const struct event_key *key, bool of_address, __u32 frames)
{
	struct history_row *p = bpf_map_lookup_elem(&history, &row);
	struct event *e;
	__u64 ns;
	int i;

	if (!p)
		return;
	ns = now();
#pragma unroll
	for (i = 0; i < ROW_EVENTS; i++) {
		e = &p->events[i];
		if (same_event(&e->key, key, of_address)) {
			e->last = ns;
			__sync_fetch_and_add(&e->frames, frames);
			return;
		}
	}
	bpf_spin_lock(&p->lock);
	e = &p->events[p->next & (ROW_EVENTS - 1)];
	p->next++;
	e->key = *key;
	e->first = ns;
	e->last = ns;
	e->frames = frames;
	bpf_spin_unlock(&p->lock);
}

/*
 * note_wrong records a frame from or to an endpoint that has tags other than the
 * endpoint's.
 */
static __always_inline void note_wrong(enum kind kind, const struct frame *f, const __u8 *endpoint_mac,
				       const __u8 *from)
{
	struct event_key key = { .kind = kind };

	set_tags(key.tag, f);
	copy_mac(key.endpoint_mac, endpoint_mac);
	copy_mac(key.mac, from);
	note_event(row_of_mac(endpoint_mac), &key, false, f->frames);
}

/*
 * note_unleased records an outbound frame from a source MAC that is not an endpoint's. It
 * is a MAC of the host itself, or of a macvlan that was made without Lanyard; user space
 * tells them apart.
 */
static __always_inline void note_unleased(const struct frame *f, const __u8 *mac)
{
	struct event_key key = { .kind = UNLEASED };
	__u64 h = *(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32;

	set_tags(key.tag, f);
	copy_mac(key.mac, mac);
	h ^= (__u64)f->tag[1] << 32 | f->tag[0];
	note_event(ENDPOINT_ROWS + (MIX(h) >> 59), &key, false, f->frames);
}

/* mac_may_be_local reports whether a MAC may be an endpoint's, or in "locals". */
static __always_inline bool mac_may_be_local(const __u8 *mac)
{
	/* layout.go computes the same slot. */
	__u32 slot = MIX(*(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32) >> 52;
	struct hint *h = bpf_map_lookup_elem(&hints, &slot);

	return h && h->macs;
}

/* local_kind returns PARENT or SIBLING, or 0 for a MAC that is not in "locals". */
static __always_inline __u32 local_kind(const __u8 *mac)
{
	struct mac_key key = {};
	__u32 *kind;

	if (!mac_may_be_local(mac))
		return 0;
	copy_mac(key.mac, mac);
	kind = bpf_map_lookup_elem(&locals, &key);
	return kind ? *kind : 0;
}

/*
 * frame_hash distinguishes the broadcast and multicast frames of one MAC, by the protocol
 * and the first 28 bytes of the body, which is a whole ARP body. Tags are not hashed,
 * because the metadata that holds one differs on the way back. It returns 0 for a shorter
 * frame.
 */
static __always_inline __u64 frame_hash(struct __sk_buff *skb, struct frame *f, const __u8 *mac)
{
	unsigned char *p = get_body(skb, f, ARP_LEN);
	__u64 h = (*(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32) ^ (__u64)f->proto << 48;
	int i;

	if (!p)
		return 0;
#pragma unroll
	for (i = 0; i < ARP_LEN; i += 4)
		h = MIX(h ^ *(__u32 *)(p + i));
	return h | 1;
}

/*
 * note_sent remembers a broadcast or multicast frame that this host sends, so that it is
 * recognized if it returns.
 */
static __always_inline void note_sent(struct __sk_buff *skb, struct frame *f, const __u8 *mac)
{
	__u64 hash = frame_hash(skb, f, mac);
	__u32 slot = hash >> 54;
	struct sent *s = bpf_map_lookup_elem(&sent, &slot);

	if (!s || !hash)
		return;
	s->hash = hash;
	s->ns = now();
}

/* was_sent reports whether this host sent the same frame within the last RETURN_TIME. */
static __always_inline bool was_sent(struct __sk_buff *skb, struct frame *f, const __u8 *mac)
{
	__u64 hash = frame_hash(skb, f, mac);
	__u32 slot = hash >> 54;
	struct sent *s = bpf_map_lookup_elem(&sent, &slot);

	return s && s->hash == hash && now() - s->ns < RETURN_TIME;
}

/*
 * answers_probe reports whether a frame answers an ARP probe (RFC 5227 §2.1.1), or is an
 * advertisement to the address from which a host asks whether an IPv6 address is in use.
 * That address is the host's link-local address with PROBE_MARK in place of the ff:fe of
 * EUI-64, so that no interface has it.
 */
static __always_inline bool answers_probe(struct __sk_buff *skb, struct frame *f)
{
	unsigned char *p;

	if (f->proto == bpf_htons(ETH_P_ARP)) {
		p = get_arp(skb, f);
		return p && *(__be16 *)(p + 6) == bpf_htons(ARPOP_REPLY) && !*(__be32 *)(p + 24);
	}
	if (f->proto == bpf_htons(ETH_P_IPV6)) {
		p = get_nd(skb, f);
		return p && p[40] == ND_ADVERT && *(__be16 *)(p + 24) == bpf_htons(0xfe80) &&
		       p[24 + 11] == PROBE_MARK >> 8 && p[24 + 12] == (PROBE_MARK & 0xff);
	}
	return false;
}

/*
 * answers_own_probe reports whether an endpoint answers a probe of its own host, to the
 * parent's MAC. The probe asks whether another station has the endpoint's address. The
 * probe reaches the endpoint itself only through a switch port that returns frames; the
 * answer would be returned in the same way and look like another station's answer.
 */
static __always_inline bool answers_own_probe(struct __sk_buff *skb, struct frame *f, const __u8 *to)
{
	return answers_probe(skb, f) && local_kind(to) == PARENT;
}

/*
 * note_question records an endpoint's question for its gateway. It takes the lock only if
 * more changes than the time and the count: a reader finds each of those as it was before
 * or after.
 */
static __always_inline void note_question(const struct frame *f, struct endpoint *e, const __u64 *addr)
{
	struct gateway *g = find_gateway(e, addr);
	__u64 ns;

	if (!g)
		return;
	ns = now();
	if (g->asked.count && same_tags(g->asked.tag, f)) {
		g->asked.ns = ns;
		__sync_fetch_and_add(&g->asked.count, 1);
		return;
	}
	bpf_spin_lock(&e->lock);
	g->asked.ns = ns;
	g->asked.count++;
	set_tags(g->asked.tag, f);
	bpf_spin_unlock(&e->lock);
}

SEC("tc")
int egress(struct __sk_buff *skb)
{
	unsigned char *eth = get_bytes(skb, ETH_HLEN);
	struct mac_key key = {};
	struct frame f = {};
	struct endpoint *e;
	__u64 addr[2];
	__u8 to[6];
	bool tags_match;

	if (!eth)
		return TC_ACT_UNSPEC;
	copy_mac(to, eth);
	copy_mac(key.mac, eth + ETH_ALEN);
	f.frames = skb->gso_segs ?: 1;
	f.proto = *(__u16 *)(eth + 2 * ETH_ALEN);
	read_tags(skb, &f, false);
	e = find_endpoint(&key, &f, &tags_match);
	if (!e) {
		note_unleased(&f, key.mac);
		if ((to[0] & 1) && local_kind(key.mac) == PARENT)
			note_sent(skb, &f, key.mac);
		return TC_ACT_UNSPEC;
	}
	if (read_question(skb, &f, addr))
		note_question(&f, e, addr);
	if (to[0] & 1)
		note_sent(skb, &f, key.mac);
	else if (tags_match && answers_own_probe(skb, &f, to))
		return TC_ACT_SHOT;
	if (tags_match) {
		__sync_fetch_and_add(&e->out_frames, f.frames);
		__sync_fetch_and_add(&e->out_bytes, skb->wire_len);
		return TC_ACT_UNSPEC;
	}
	__sync_fetch_and_add(&e->out_wrong, f.frames);
	note_wrong(e->flags & ENFORCE ? WRONG_OUT_DROPPED : WRONG_OUT, &f, key.mac, key.mac);
	if (!(e->flags & ENFORCE))
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&e->dropped, f.frames);
	return TC_ACT_SHOT;
}

/*
 * note_vlan records a frame from the wire in the VLAN of its outermost tag, and once per
 * jiffy the time and the source MAC.
 */
static __always_inline void note_vlan(__u32 vid, __u32 frames, const __u8 *mac)
{
	struct vlan *v = bpf_map_lookup_elem(&vlans, &vid);
	__u64 jiffy;

	if (!v)
		return;
	__sync_fetch_and_add(&v->frames, frames);
	jiffy = bpf_jiffies64();
	if (v->jiffy == jiffy)
		return;
	v->jiffy = jiffy;
	v->ns = now();
	copy_mac(v->mac, mac);
}

/* note_mac_event records an event of one of this host's MACs. */
static __always_inline void note_mac_event(enum kind kind, const struct frame *f, const __u8 *mac)
{
	struct event_key key = { .kind = kind };

	set_tags(key.tag, f);
	copy_mac(key.mac, mac);
	copy_mac(key.endpoint_mac, mac);
	note_event(row_of_mac(mac), &key, false, f->frames);
}

/*
 * is_returned reports whether a broadcast or multicast frame, with a MAC of this host as
 * its source, is a frame of this host that was returned by a loop, or by a port that
 * sends frames back (hairpin): this host has just sent the same frame. Once a port has
 * returned a parent's frame, other frames are taken for returned ones, too. A returned
 * frame of an endpoint alone does not prove such a port: another station with its MAC may
 * have sent the same frame at the same time.
 */
static __always_inline bool is_returned(struct __sk_buff *skb, struct frame *f, const __u8 *mac,
				     bool from_parent)
{
	__u32 key = 0;
	struct port *p = bpf_map_lookup_elem(&port, &key);

	if (!p)
		return true;
	if (was_sent(skb, f, mac)) {
		if (from_parent)
			p->returned_ns = now();
		return true;
	}
	return p->returned_ns && now() - p->returned_ns < HAIRPIN_TIME;
}

/*
 * note_own_source handles an inbound frame that has as its source an endpoint's MAC, with
 * the endpoint's tags, or the parent's MAC; own is NULL for the parent. A unicast frame
 * between siblings proves nothing. A broadcast or multicast frame was either returned, or
 * another station has this MAC. An answer to the host's own probe cannot come from the
 * endpoint, because egress drops that answer: see answers_own_probe.
 */
static __always_inline void note_own_source(struct __sk_buff *skb, struct frame *f, struct endpoint *own,
				     const __u8 *mac, const __u8 *to)
{
	if (to[0] & 1) {
		if (is_returned(skb, f, mac, !own)) {
			if (own) {
				own->returned_ns = now();
				__sync_fetch_and_add(&own->returned, 1);
			}
			note_mac_event(RETURNED, f, mac);
			return;
		}
	} else if (!answers_own_probe(skb, f, to)) {
		return;
	}
	if (own) {
		own->duplicate_ns = now();
		__sync_fetch_and_add(&own->duplicates, 1);
	}
	note_mac_event(DUPLICATE, f, mac);
}

/*
 * note_moved records that a gateway's address is now answered by another MAC.
 * endpoint_mac is NULL for an answer to all nodes.
 */
static __always_inline void note_moved(const struct frame *f, const struct claim *c, __u32 row,
				       const __u8 *endpoint_mac, const __u8 *previous_mac)
{
	struct event_key key = { .kind = MOVED };

	set_tags(key.tag, f);
	((__u64 *)key.addr)[0] = c->addr[0];
	((__u64 *)key.addr)[1] = c->addr[1];
	copy_mac(key.mac, c->mac);
	if (endpoint_mac)
		copy_mac(key.endpoint_mac, endpoint_mac);
	copy_mac(key.previous_mac, previous_mac);
	note_event(row, &key, true, 1);
}

/*
 * note_reply records an answer about an endpoint's gateway, sent to that endpoint. It
 * returns true if the answer and its time equal those of the last one, which was
 * processed already.
 */
static __always_inline bool note_reply(const struct frame *f, struct endpoint *e, const __u8 *endpoint_mac,
				       const struct claim *c)
{
	struct gateway *g = find_gateway(e, c->addr);
	__u8 previous_mac[6] = {};
	bool moved, repeated;
	__u64 ns;

	if (!g)
		return false;
	ns = now();
	if (g->reply.count && same_mac(g->mac, c->mac) && same_tags(g->reply.tag, f)) {
		repeated = g->reply.ns == ns;
		g->reply.ns = ns;
		__sync_fetch_and_add(&g->reply.count, 1);
		return repeated;
	}
	bpf_spin_lock(&e->lock);
	moved = g->reply.count && !same_mac(g->mac, c->mac);
	if (moved) {
		copy_mac(previous_mac, g->mac);
		copy_mac(g->previous_mac, g->mac);
		g->previous_ns = g->reply.ns;
	}
	copy_mac(g->mac, c->mac);
	g->reply.ns = ns;
	g->reply.count++;
	set_tags(g->reply.tag, f);
	bpf_spin_unlock(&e->lock);
	if (moved)
		note_moved(f, c, row_of_mac(endpoint_mac), endpoint_mac, previous_mac);
	return false;
}

/*
 * find_hint returns the hint that says whether an address under some tags may be leased
 * or a gateway's.
 */
static __always_inline struct hint *find_hint(__u32 outer, __u32 inner, const __u64 *addr)
{
	__u64 h = (addr[0] * 31 + addr[1]) * 31 + ((__u64)inner << 32 | outer);
	__u32 slot;

	/* layout.go computes the same slot. */
	slot = MIX(h) >> 52;
	return bpf_map_lookup_elem(&hints, &slot);
}

/* find_address returns the row of an address under some tags, or NULL. */
static __always_inline struct address *find_address(__u32 outer, __u32 inner, const __u64 *addr)
{
	struct address_key key = {
		.outer = outer,
		.inner = inner,
	};

	((__u64 *)key.addr)[0] = addr[0];
	((__u64 *)key.addr)[1] = addr[1];
	return bpf_map_lookup_elem(&addrs, &key);
}

/* row_of_addr returns the history row for the events of an address. */
static __always_inline __u32 row_of_addr(const __u64 *addr)
{
	return MIX(addr[0] * 31 + addr[1]) >> 57;
}

/*
 * note_claimant records a claim on a leased address by a MAC that is not its holder. It
 * is an event only if the holder uses the address already.
 */
static __always_inline void note_claimant(struct address *a, const struct claim *c, struct event_key *key)
{
	__u64 ns = now();

	if (!(a->flags & TENTATIVE)) {
		key->kind = CONFLICT;
		copy_mac(key->endpoint_mac, a->holder);
		note_event(row_of_addr(c->addr), key, true, 1);
	}
	if (a->claims && same_mac(a->claimant, c->mac)) {
		a->claimed_ns = ns;
		__sync_fetch_and_add(&a->claims, 1);
		return;
	}
	bpf_spin_lock(&a->lock);
	/* The holder may have changed since the check without the lock. */
	if (!same_mac(a->holder, c->mac)) {
		if (!same_mac(a->claimant, c->mac)) {
			copy_mac(a->claimant, c->mac);
			a->claims = 0;
		}
		a->claims++;
		a->claimed_ns = ns;
	}
	bpf_spin_unlock(&a->lock);
}

/*
 * note_probe records a station that probes for a leased address. If the holder is about
 * to take the address, too, that is a conflict (RFC 5227 §2.1.1, RFC 4862 §5.4.3). If the
 * holder already uses it, there is no conflict: the prober will learn that from the
 * holder. User space decides which case applies.
 */
static __always_inline void note_probe(struct address *a, const struct claim *c)
{
	__u64 ns = now();

	bpf_spin_lock(&a->lock);
	if (!same_mac(a->holder, c->mac)) {
		copy_mac(a->prober, c->mac);
		a->prober_ns = ns;
		a->probes++;
	}
	bpf_spin_unlock(&a->lock);
}

/*
 * note_answer records an answer to all nodes about a gateway, unless it repeats the last
 * one. own is set if an endpoint expects the frame's tags.
 */
static __always_inline void note_answer(const struct frame *f, struct address *a, const struct claim *c, bool own)
{
	struct answer *r = &a->recent[(a->replies - 1) & (RECENT - 1)];
	__u64 ns = now();

	if (same_mac(r->mac, c->mac)) {
		if (r->ns == ns && same_tags(r->tag, f))
			return;
	} else if (own && r->ns) {
		note_moved(f, c, row_of_addr(c->addr), NULL, r->mac);
	}
	bpf_spin_lock(&a->lock);
	r = &a->recent[a->replies & (RECENT - 1)];
	r->ns = ns;
	set_tags(r->tag, f);
	copy_mac(r->mac, c->mac);
	a->replies++;
	bpf_spin_unlock(&a->lock);
}

/* same_claim reports whether a claim equals the last one that was processed. */
static __always_inline bool same_claim(const struct last_claim *last, const struct event_key *key, bool to_all)
{
	const __u64 *x = (const __u64 *)last->key.addr, *y = (const __u64 *)key->addr;

	return x[0] == y[0] && x[1] == y[1] && same_mac(last->key.mac, key->mac) &&
	       last->key.tag[0] == key->tag[0] && last->key.tag[1] == key->tag[1] &&
	       last->key.tag[2] == key->tag[2] && last->to_all == to_all;
}

/*
 * note_claim processes a claim on an address. The sender is a claimant if the address is
 * leased to another MAC. The holder's own frames, returned by a switch or sent to a
 * sibling, make no claimant. An answer to all nodes about a gateway is the reply to a
 * question that was asked without a source address (RFC 4861 §7.2.4).
 */
static __always_inline void note_claim(const struct frame *f, const struct claim *c, bool to_all)
{
	struct address *a = NULL;
	bool may_exist;
	struct event_key key = {};
	struct last_claim *last;
	struct hint *h;
	__u32 slot;

	to_all = to_all && c->answer;
	h = find_hint(f->tag[0], f->tag[1], c->addr);
	may_exist = h && (h->leased || (to_all && h->asked)) && !f->tag[2];
	/* ARP replies are unicast, whatever the tag: no lookup is needed. */
	if (!may_exist) {
		if (!to_all || f->proto != bpf_htons(ETH_P_IPV6))
			return;
		h = find_hint(ANY_TAGS, ANY_TAGS, c->addr);
		if (!h || !h->asked)
			return;
	}
	set_tags(key.tag, f);
	((__u64 *)key.addr)[0] = c->addr[0];
	((__u64 *)key.addr)[1] = c->addr[1];
	copy_mac(key.mac, c->mac);
	slot = row_of_addr(c->addr) & (LAST_CLAIMS - 1);
	last = bpf_map_lookup_elem(&last_claims, &slot);
	if (!last)
		return;
	if (last->ns == now() && same_claim(last, &key, to_all)) {
		if (last->key.kind == CONFLICT)
			note_event(row_of_addr(c->addr), &last->key, true, 1);
		return;
	}
	if (may_exist)
		a = find_address(f->tag[0], f->tag[1], c->addr);
	if (a && (a->flags & LEASED) && c->probe)
		note_probe(a, c);
	else if (a && (a->flags & LEASED) && !same_mac(a->holder, c->mac))
		note_claimant(a, c, &key);
	if (a && (a->flags & GATEWAY) && to_all)
		note_answer(f, a, c, true);
	/* fe80::1 is the gateway's address on many VLANs, a different gateway on each. */
	if (!a && to_all && f->proto == bpf_htons(ETH_P_IPV6)) {
		a = find_address(ANY_TAGS, ANY_TAGS, c->addr);
		if (a && (a->flags & GATEWAY))
			note_answer(f, a, c, false);
	}
	last->key = key;
	last->to_all = to_all;
	last->ns = now();
}

/*
 * is_from_host reports whether the source of a frame is a MAC of this host. Such a frame
 * proves nothing about the VLAN.
 */
static __always_inline bool is_from_host(struct __sk_buff *skb, struct frame *f, const __u8 *mac,
				      const __u8 *to)
{
	struct mac_key key = {};
	struct endpoint *own;
	__u32 kind;
	bool tags_match;

	if (!mac_may_be_local(mac))
		return false;
	copy_mac(key.mac, mac);
	own = find_endpoint(&key, f, &tags_match);
	if (own) {
		if (tags_match)
			note_own_source(skb, f, own, mac, to);
		return true;
	}
	kind = local_kind(mac);
	if (kind == PARENT)
		note_own_source(skb, f, NULL, mac, to);
	return kind;
}

SEC("tc")
int ingress(struct __sk_buff *skb)
{
	unsigned char *eth = get_bytes(skb, ETH_HLEN);
	struct mac_key key = {};
	struct endpoint *e = NULL;
	struct claim c = {};
	struct frame f = {};
	bool tags_match, to_all, local, claims = false;
	__u8 from[6];

	if (!eth)
		return TC_ACT_UNSPEC;
	copy_mac(key.mac, eth);
	copy_mac(from, eth + ETH_ALEN);
	copy_mac(c.mac, from);
	to_all = eth[0] & 1;
	f.frames = skb->gso_segs ?: 1;
	f.proto = *(__u16 *)(eth + 2 * ETH_ALEN);
	read_tags(skb, &f, true);
	local = is_from_host(skb, &f, from, key.mac);
	if (!local)
		note_vlan(f.tag[0] & VID_MASK, f.frames, from);
	if (!to_all) {
		e = find_endpoint(&key, &f, &tags_match);
		if (e && !tags_match) {
			__sync_fetch_and_add(&e->in_wrong, f.frames);
			note_wrong(WRONG_IN, &f, key.mac, from);
		} else if (e && !local) {
			__sync_fetch_and_add(&e->in_frames, f.frames);
			__sync_fetch_and_add(&e->in_bytes, skb->len);
		}
	}
	if (f.proto == bpf_htons(ETH_P_ARP))
		claims = arp_claim(skb, &f, &c);
	else if (f.proto == bpf_htons(ETH_P_IPV6))
		claims = nd_claim(skb, &f, &c);
	/* A claim by the parent's MAC is a probe of this host that was returned. */
	if (!claims || (local && local_kind(c.mac) == PARENT))
		return TC_ACT_UNSPEC;
	if (e && c.answer && note_reply(&f, e, key.mac, &c))
		return TC_ACT_UNSPEC;
	note_claim(&f, &c, to_all);
	return TC_ACT_UNSPEC;
}

/* emit sends the frame of a test run out of the interface with the index in cb[0]. */
SEC("tc")
int emit(struct __sk_buff *skb)
{
	return bpf_clone_redirect(skb, skb->cb[0], 0);
}

/* bpf_ktime_get_ns is available only to GPL programs. */
char _license[] SEC("license") = "GPL";
