//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Watches a trunk: which tags the frames of the leased MACs carry, who answers
 * for their gateways, who else claims their addresses, which VLANs are alive.
 * One pair of programs and one set of maps per trunk, so no key names it.
 *
 * Every frame goes on to the next program in the chain, but for two kinds. A frame
 * of a leased MAC that would leave with tags that are not its network's: a container
 * can write a tag by hand and so hop into another VLAN, and nothing else stops that.
 * And a container's answer to the host's own question whether an address is in use:
 * see answers_host.
 *
 * The ingress of a trunk sees more than what comes from the wire. Unicast between two
 * macvlans in bridge mode on the trunk itself passes there as well (macvlan_queue_xmit,
 * dev_forward_skb), and a switch port may send a frame back where it came from. So a
 * frame whose source is a MAC of this host shows nothing of the VLAN. With the MAC of
 * an endpoint, and sent to all, it is either a frame of ours that came back or that of
 * another station with the same MAC: see note_own.
 *
 * What costs most is left out where it can be: a frame is looked up once, by its
 * MAC; an address only where a hint says that it may be one of ours; the clock
 * is read once per jiffy, but while somebody probes; and what is the same as the
 * last time is counted without the lock. BenchmarkProgram says what is left.
 *
 * Everything here also loads on 5.10: no atomic operation that fetches, no
 * kernel types, loops unrolled.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_TAGS	3	/* one in metadata and two in bytes; more than the third is not told apart */
#define MAX_ADDRS	4
#define MAX_GATEWAYS	4
#define RECENT		8	/* power of two */
#define VLANS		4096
#define HINTS		4096	/* power of two */
#define AGAIN		64	/* power of two */
#define WAYS		4	/* power of two */
#define OURS		128	/* power of two; as many places for what happens to one of ours */
#define UNLEASED_PLACES	32	/* power of two; and as many behind them for MACs that are nobody's */
#define SENT		1024	/* power of two */

/*
 * How long a frame that was sent to all may take to come back, and how long a port
 * that has sent the host's own back is expected to send back others, in ns.
 */
#define RETURN_TIME	500000000ULL
#define RETURNS_FOR	60000000000ULL

/*
 * A tag is TPID << 16 | VID in host order, 0 for none. A sighting also says
 * where the outermost tag was, in a bit that no VID uses.
 */
#define VID_MASK	0x0fff
#define IN_PACKET	0x8000
#define ANY_TAGS	0xffffffff

/* Flags of an endpoint. */
#define ENFORCE		1
#define SEVERAL		2	/* no endpoint: those of this MAC are in the map "shared" */

/* Flags of an address: what it is to us. It may be both. */
#define LEASED		1	/* holder has it */
#define GATEWAY		2	/* endpoints ask for it */
#define TENTATIVE	4	/* holder is only about to use it */

/* Kinds of a MAC in the map "locals". */
#define PARENT		1	/* of the trunk, or of a parent on it */
#define SIBLING		2	/* of a macvlan on the trunk that is no endpoint */

/* linux/if_arp.h has these, and the C library with it. */
#define ARPHRD_ETHER	1
#define ARPOP_REQUEST	1
#define ARPOP_REPLY	2

#define ND_SOLICIT	135
#define ND_ADVERT	136
#define ND_OPT_SOURCE	1
#define ND_OPT_TARGET	2

#define PROBE_MARK	0x6c79	/* verify/mac.go has it as well */

struct sighting {
	__u64 ns;		/* now() */
	__u32 tag[MAX_TAGS];	/* outermost first */
	__u32 count;
};

struct gateway {
	__u8 addr[16];
	struct sighting asked;
	struct sighting reply;	/* to this endpoint's MAC */
	__u64 other_ns;
	__u8 mac[6];
	__u8 other[6];		/* who answered before mac */
	__u32 zero;
	__u64 since;		/* user space's own: when the watch for it began */
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
	struct bpf_spin_lock lock; /* of gateways[] */
	__u32 flags;
	__u32 outer;
	__u32 inner;
	/* Added to without the lock. */
	__u64 out_frames;
	__u64 out_bytes;
	__u64 in_frames;
	__u64 in_bytes;
	__u64 out_wrong;
	__u64 in_wrong;
	__u64 dropped;
	__u64 duplicate_ns;	/* the last frame of another station with this MAC */
	__u64 returned_ns;	/* the last frame of ours that came back */
	__u32 duplicates;
	__u32 returned;
	struct gateway gateways[MAX_GATEWAYS];
	/* The rest is user space's own. */
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
 * With ANY_TAGS: a gateway's address under tags that nobody asked for. Only
 * answers that went to all are kept here, in a ring, since which endpoint they
 * answer cannot be told from the frame; answers to one MAC are kept with it.
 */
struct address {
	struct bpf_spin_lock lock;
	__u32 flags;
	__u8 holder[6];
	__u8 claimant[6];
	__u32 claims;
	__u64 claimed_ns;
	__u64 prober_ns;
	__u8 prober[6];		/* that asked whether it may take the address */
	__u16 zero;
	__u32 probes;
	__u32 replies;
	__u32 zero_too;
	struct answer recent[RECENT];
};

/* Frames from the wire alone: those with a source MAC of this host do not count. */
struct vlan {
	__u64 frames;
	__u64 ns;		/* of the first frame within the jiffy */
	__u64 jiffy;
	__u8 mac[6];		/* that sent it */
	__u16 zero;
};

/* Kinds of what happened. history.go has them as well. */
enum kind {
	CONFLICT = 1,	/* mac claimed addr, which is of's */
	WRONG_OUT,	/* of sent with tags that are not its own */
	STOPPED,	/* and was not let */
	WRONG_IN,	/* mac sent to of with such tags */
	MOVED,		/* mac answered of, or all, for gateway addr, and was did before */
	UNLEASED,	/* mac sent, and is nobody's that is watched */
	DUPLICATE,	/* mac came in from the wire, and is an endpoint's of ours */
	RETURNED,	/* a frame that mac, which is ours, had sent came back */
};

/* Each of its bytes counts: what is the same in all of them is one event. */
struct what {
	__u32 kind;
	__u32 tag[MAX_TAGS];
	__u8 addr[16];
	__u8 mac[6];
	__u8 of[6];
	__u8 was[6];
	__u16 zero[3];
};

struct event {
	struct what what;
	__u64 first;	/* now() */
	__u64 last;
	__u64 frames;
};

/*
 * The last few events of a place, which is what they happened to: somebody who
 * makes many of them for one address makes that one forget its own. A newer event
 * takes the place of the one that has been there longest.
 */
struct place {
	struct bpf_spin_lock lock;
	__u32 next;
	struct event events[WAYS];
};

/*
 * The time of the last look at the clock. With mix = ns ^ jiffy the pair is known
 * to belong together, in whatever order another CPU sees it written.
 */
struct clock {
	__u64 ns;
	__u64 mix;
	__u64 exact_until;	/* somebody probes until then: user space's own */
};

/* What is known of the switch port. */
struct port {
	__u64 returned_ns;	/* when it last sent a frame of a parent's back */
};

/*
 * How many addresses that hash to the same are leased, and are asked for; and how
 * many MACs that hash to it are an endpoint's or in "locals".
 */
struct hint {
	__u32 leased;
	__u32 asked;
	__u32 macs;
	__u32 zero;
};

/* A frame that this host has sent to all: what it was, and when. */
struct sent {
	__u64 hash;
	__u64 ns;
};

/*
 * The last claim that was looked into. The same again, at the same time, has nothing
 * new to tell but how often: no need to look. While somebody probes no two times are
 * the same.
 */
struct again {
	__u64 ns;
	struct what what;	/* kind is 0 where it was no conflict */
	__u32 to_all;
	__u32 zero;
};

/*
 * A MAC's endpoint. Where several have the MAC, under different tags, theirs are
 * in "shared", and the row here names the first of them: whose a wrong tag is.
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
 * MACs of this host on the trunk that are no endpoint's; user space keeps it. The value
 * is PARENT or SIBLING.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct mac_key);
	__type(value, __u32);
} locals SEC(".maps");

/* The last frames that endpoints and parents have sent to all, by hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SENT);
	__type(key, __u32);
	__type(value, struct sent);
} sent SEC(".maps");

/* Each processor's own: what two wrote at once could be a claim that nobody made. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, AGAIN);
	__type(key, __u32);
	__type(value, struct again);
} lately SEC(".maps");

/* What happened, for whoever comes to look: many may, and the newest is kept. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OURS + UNLEASED_PLACES);
	__type(key, __u32);
	__type(value, struct place);
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
 * MACs whose watch has ended, and when: a container that ends may still send a frame
 * or two, which are no stranger's. No program looks here either.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct mac_key);
	__type(value, __u64);
} former SEC(".maps");

/*
 * Which device the trunk is: the kernel empties the slot when the device goes
 * (kernel/bpf/devmap.c, dev_map_notification), and an ifindex that another
 * device has got does not fill it again. No program looks here.
 */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} device SEC(".maps");

/* What has been read of a frame. */
struct frame {
	__u32 tag[MAX_TAGS];
	__u32 off;		/* of what follows the tags in the bytes */
	__u32 frames;		/* that a segmented buffer will be, or was, on the wire */
	__u16 proto;		/* network order */
	__u16 in_packet;
};

/* What a frame says about an address. */
struct claim {
	__u64 addr[2];
	__u8 mac[6];		/* who says that it holds addr */
	__u8 answer;		/* ARP reply or advertisement */
	__u8 probe;		/* mac is only about to take addr */
};

/*
 * reach gives the frame from its Ethernet header on, with len bytes readable, or
 * NULL if it is shorter. Pulling is for the rare frame whose headers are in
 * fragments: a sender chooses where they begin, so they have to be looked at.
 */
static __always_inline unsigned char *reach(struct __sk_buff *skb, __u32 len)
{
	unsigned char *data;

	/* Else clang keeps &skb->data_end for later, which the verifier refuses. */
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
 * now gives the time of bpf_ktime_get_ns(), read while somebody probes, and else
 * up to a jiffy old: a look at the clock costs as much as all the rest.
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
 * is_tpid also knows what some switches take for a tag before 802.1ad had a
 * number of its own; the kernel never writes it, but a container may by hand.
 */
static __always_inline bool is_tpid(__u16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) ||
	       proto == bpf_htons(ETH_P_QINQ1) || proto == bpf_htons(ETH_P_QINQ2) ||
	       proto == bpf_htons(ETH_P_QINQ3);
}

/*
 * read_tags reads the tag in metadata and those in the bytes. Inbound, VID 0 is
 * a priority and no VLAN; outbound nobody writes it but by hand. A tag that is
 * cut short counts as VID 0, so that one with a known sender does not pass.
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
		data = reach(skb, f->off);
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
 * body gives len bytes behind the tags. The offset is one of four; masking it
 * tells the verifier of 5.10, which forgets a bound when it spills.
 */
static __always_inline unsigned char *body(struct __sk_buff *skb, struct frame *f, __u32 len)
{
	unsigned char *data;
	__u32 off = f->off;

	asm volatile("%0 &= 31" : "+r"(off));
	data = reach(skb, off + len);
	return data ? data + off : NULL;
}

#define ARP_LEN		28
#define ND_LEN		(sizeof(struct ipv6hdr) + 24)

/* arp gives an ARP body for IPv4 over Ethernet (RFC 826), or NULL. */
static __always_inline unsigned char *arp(struct __sk_buff *skb, struct frame *f)
{
	unsigned char *p = body(skb, f, ARP_LEN);

	if (!p || *(__be32 *)p != bpf_htonl(ARPHRD_ETHER << 16 | ETH_P_IP) ||
	    *(__be16 *)(p + 4) != bpf_htons(ETH_ALEN << 8 | 4))
		return NULL;
	return p;
}

/*
 * nd gives an IPv6 header with a neighbour solicitation or advertisement (RFC 4861
 * §7.1) behind it, or NULL. Behind extension headers none is looked for: a
 * fragmented one is invalid (RFC 6980), and nobody sends the others with ND.
 */
static __always_inline unsigned char *nd(struct __sk_buff *skb, struct frame *f)
{
	unsigned char *p = body(skb, f, 8);

	if (!p || p[6] != IPPROTO_ICMPV6)
		return NULL;
	p = body(skb, f, ND_LEN);
	if (!p || p[7] != 255 || (p[40] != ND_SOLICIT && p[40] != ND_ADVERT) || p[41])
		return NULL;
	return p;
}

/* asks says whether an outbound frame asks who has an address, and which. */
static __always_inline bool asks(struct __sk_buff *skb, struct frame *f, __u64 *addr)
{
	unsigned char *p;

	if (f->proto == bpf_htons(ETH_P_ARP)) {
		p = arp(skb, f);
		if (!p || *(__be16 *)(p + 6) != bpf_htons(ARPOP_REQUEST))
			return false;
		map_ip4(addr, p + 24);
		return true;
	}
	if (f->proto == bpf_htons(ETH_P_IPV6)) {
		p = nd(skb, f);
		if (!p || p[40] != ND_SOLICIT)
			return false;
		copy_ip6(addr, p + 48);
		return true;
	}
	return false;
}

/*
 * arp_claim: any ARP claims its sender's address, but for a probe, whose sender is
 * about to take the target's (RFC 5227 §2.1.1).
 */
static __always_inline bool arp_claim(struct __sk_buff *skb, struct frame *f, struct claim *c)
{
	unsigned char *p = arp(skb, f);

	if (!p)
		return false;
	c->answer = *(__be16 *)(p + 6) == bpf_htons(ARPOP_REPLY);
	copy_mac(c->mac, p + 8);
	c->probe = !*(__be32 *)(p + 14) && !c->answer;
	map_ip4(c->addr, *(__be32 *)(p + 14) ? p + 14 : p + 24);
	return true;
}

/*
 * nd_claim: an advertisement claims its target, a solicitation its source, or
 * its target while the source is :: (RFC 4862 §5.4.3). The MAC is that of the
 * first option; where there is none it is the frame's, set by the caller.
 */
static __always_inline bool nd_claim(struct __sk_buff *skb, struct frame *f, struct claim *c)
{
	unsigned char *p = nd(skb, f);
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
	p = body(skb, f, ND_LEN + 8);
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

static __always_inline bool at(__u32 outer, __u32 inner, const struct frame *f)
{
	return outer == f->tag[0] && inner == f->tag[1] && !f->tag[2];
}

/*
 * find gives the endpoint of a MAC and whether the frame's tags are its own.
 * Three tags are nobody's.
 */
static __always_inline struct endpoint *find(const struct mac_key *mac, const struct frame *f, bool *right)
{
	struct endpoint *first = bpf_map_lookup_elem(&endpoints, mac), *e;
	struct endpoint_key key = {
		.outer = f->tag[0],
		.inner = f->tag[1],
	};

	*right = first && at(first->outer, first->inner, f);
	if (!first || !(first->flags & SEVERAL))
		return first;
	copy_mac(key.mac, mac->mac);
	e = f->tag[2] ? NULL : bpf_map_lookup_elem(&shared, &key);
	*right = e;
	if (e)
		return e;
	key.outer = first->outer;
	key.inner = first->inner;
	return bpf_map_lookup_elem(&shared, &key);
}

#define MIX(h)	((h) * 0x9e3779b97f4a7c15ULL)

static __always_inline __u32 place_of(const __u8 *mac)
{
	return MIX(*(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32) >> 57;
}

/* same_what compares all but what is always zero in that kind. */
static __always_inline bool same_what(const struct what *a, const struct what *b, bool of_address)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	if (x[0] != y[0] || x[1] != y[1] || x[4] != y[4] || x[5] != y[5])
		return false;
	return !of_address || (x[2] == y[2] && x[3] == y[3] && x[6] == y[6]);
}

/* note keeps what happened. The same again needs no lock: it is counted. */
static __always_inline void note(__u32 place, const struct what *what, bool of_address, __u32 frames)
{
	struct place *p = bpf_map_lookup_elem(&history, &place);
	struct event *e;
	__u64 ns;
	int i;

	if (!p)
		return;
	ns = now();
#pragma unroll
	for (i = 0; i < WAYS; i++) {
		e = &p->events[i];
		if (same_what(&e->what, what, of_address)) {
			e->last = ns;
			__sync_fetch_and_add(&e->frames, frames);
			return;
		}
	}
	bpf_spin_lock(&p->lock);
	e = &p->events[p->next & (WAYS - 1)];
	p->next++;
	e->what = *what;
	e->first = ns;
	e->last = ns;
	e->frames = frames;
	bpf_spin_unlock(&p->lock);
}

/* note_wrong: a frame of one of ours, or to it, with tags that are not its own. */
static __always_inline void note_wrong(enum kind kind, const struct frame *f, const __u8 *of,
				       const __u8 *from)
{
	struct what w = { .kind = kind };

	set_tags(w.tag, f);
	copy_mac(w.of, of);
	copy_mac(w.mac, from);
	note(place_of(of), &w, false, f->frames);
}

/*
 * note_unleased: a frame leaves whose MAC nobody is watched for: the host's own, or
 * somebody's who has made a macvlan of their own choice. Which, user space knows.
 */
static __always_inline void note_unleased(const struct frame *f, const __u8 *mac)
{
	struct what w = { .kind = UNLEASED };
	__u64 h = *(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32;

	set_tags(w.tag, f);
	copy_mac(w.mac, mac);
	h ^= (__u64)f->tag[1] << 32 | f->tag[0];
	note(OURS + (MIX(h) >> 59), &w, false, f->frames);
}

/* mac_may_be_local says whether a MAC may be an endpoint's, or in "locals". */
static __always_inline bool mac_may_be_local(const __u8 *mac)
{
	/* layout.go does the same. */
	__u32 slot = MIX(*(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32) >> 52;
	struct hint *h = bpf_map_lookup_elem(&hints, &slot);

	return h && h->macs;
}

/* local_kind gives PARENT, SIBLING, or 0 for a MAC that is not in "locals". */
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
 * frame_hash tells a frame to all from others of the same MAC: by its protocol and the
 * first 28 bytes of its body, which is all of an ARP. The tags do not count, since the
 * metadata that has them is another on the way back. 0 where the frame is shorter.
 */
static __always_inline __u64 frame_hash(struct __sk_buff *skb, struct frame *f, const __u8 *mac)
{
	unsigned char *p = body(skb, f, ARP_LEN);
	__u64 h = (*(__u32 *)mac | (__u64)*(__u16 *)(mac + 4) << 32) ^ (__u64)f->proto << 48;
	int i;

	if (!p)
		return 0;
#pragma unroll
	for (i = 0; i < ARP_LEN; i += 4)
		h = MIX(h ^ *(__u32 *)(p + i));
	return h | 1;
}

/* note_sent keeps what this host sends to all, so that it is known if it comes back. */
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

/* came_back says whether a frame is one that this host sent a moment ago. */
static __always_inline bool came_back(struct __sk_buff *skb, struct frame *f, const __u8 *mac)
{
	__u64 hash = frame_hash(skb, f, mac);
	__u32 slot = hash >> 54;
	struct sent *s = bpf_map_lookup_elem(&sent, &slot);

	return s && s->hash == hash && now() - s->ns < RETURN_TIME;
}

/*
 * answers_probe says whether a frame answers an ARP probe (RFC 5227 §2.1.1), or goes to
 * an address that a host asks from whether an IPv6 address is in use: its link-local
 * with PROBE_MARK where EUI-64 has ff:fe, so that it is no interface's.
 */
static __always_inline bool answers_probe(struct __sk_buff *skb, struct frame *f)
{
	unsigned char *p;

	if (f->proto == bpf_htons(ETH_P_ARP)) {
		p = arp(skb, f);
		return p && *(__be16 *)(p + 6) == bpf_htons(ARPOP_REPLY) && !*(__be32 *)(p + 24);
	}
	if (f->proto == bpf_htons(ETH_P_IPV6)) {
		p = nd(skb, f);
		return p && p[40] == ND_ADVERT && *(__be16 *)(p + 24) == bpf_htons(0xfe80) &&
		       p[24 + 11] == PROBE_MARK >> 8 && p[24 + 12] == (PROBE_MARK & 0xff);
	}
	return false;
}

/*
 * answers_host says whether an endpoint answers a probe of its own host's, to the
 * parent's MAC. The question is whether another station has the endpoint's address. Only
 * a switch port that sends frames back brings it to the endpoint itself; the answer
 * would come back in the same way and look like the other station's.
 */
static __always_inline bool answers_host(struct __sk_buff *skb, struct frame *f, const __u8 *to)
{
	return answers_probe(skb, f) && local_kind(to) == PARENT;
}

/*
 * note_asked takes the lock only where more changes than the time and the count:
 * whoever reads finds both as they were before or after.
 */
static __always_inline void note_asked(const struct frame *f, struct endpoint *e, const __u64 *addr)
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
	unsigned char *eth = reach(skb, ETH_HLEN);
	struct mac_key key = {};
	struct frame f = {};
	struct endpoint *e;
	__u64 addr[2];
	__u8 to[6];
	bool right;

	if (!eth)
		return TC_ACT_UNSPEC;
	copy_mac(to, eth);
	copy_mac(key.mac, eth + ETH_ALEN);
	f.frames = skb->gso_segs ?: 1;
	f.proto = *(__u16 *)(eth + 2 * ETH_ALEN);
	read_tags(skb, &f, false);
	e = find(&key, &f, &right);
	if (!e) {
		note_unleased(&f, key.mac);
		if ((to[0] & 1) && local_kind(key.mac) == PARENT)
			note_sent(skb, &f, key.mac);
		return TC_ACT_UNSPEC;
	}
	if (asks(skb, &f, addr))
		note_asked(&f, e, addr);
	if (to[0] & 1)
		note_sent(skb, &f, key.mac);
	else if (right && answers_host(skb, &f, to))
		return TC_ACT_SHOT;
	if (right) {
		__sync_fetch_and_add(&e->out_frames, f.frames);
		__sync_fetch_and_add(&e->out_bytes, skb->wire_len);
		return TC_ACT_UNSPEC;
	}
	__sync_fetch_and_add(&e->out_wrong, f.frames);
	note_wrong(e->flags & ENFORCE ? STOPPED : WRONG_OUT, &f, key.mac, key.mac);
	if (!(e->flags & ENFORCE))
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&e->dropped, f.frames);
	return TC_ACT_SHOT;
}

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

static __always_inline void note_at_mac(enum kind kind, const struct frame *f, const __u8 *mac)
{
	struct what w = { .kind = kind };

	set_tags(w.tag, f);
	copy_mac(w.mac, mac);
	copy_mac(w.of, mac);
	note(place_of(mac), &w, false, f->frames);
}

/*
 * returned says whether a frame to all, which has a MAC of this host as its source, is
 * one of this host's that came back, by a loop or by a port that sends frames back
 * (hairpin): the host has just sent the same. Behind a port that sends back a parent's
 * frames others are taken for such as well. An endpoint's frame alone does not show
 * that: another station with its MAC may have sent the same at the same time.
 */
static __always_inline bool returned(struct __sk_buff *skb, struct frame *f, const __u8 *mac,
				     bool parents)
{
	__u32 key = 0;
	struct port *p = bpf_map_lookup_elem(&port, &key);

	if (!p)
		return true;
	if (came_back(skb, f, mac)) {
		if (parents)
			p->returned_ns = now();
		return true;
	}
	return p->returned_ns && now() - p->returned_ns < RETURNS_FOR;
}

/*
 * note_own looks at a frame whose source is an endpoint's MAC, with its tags, or the
 * parent's: own is NULL then. Between siblings nothing is to be learnt from it. Sent to
 * all, it has come back, or another station has this MAC. An answer to the host's own
 * probe cannot be the endpoint's, since egress drops that: see answers_host.
 */
static __always_inline void note_own(struct __sk_buff *skb, struct frame *f, struct endpoint *own,
				     const __u8 *mac, const __u8 *to)
{
	if (to[0] & 1) {
		if (returned(skb, f, mac, !own)) {
			if (own) {
				own->returned_ns = now();
				__sync_fetch_and_add(&own->returned, 1);
			}
			note_at_mac(RETURNED, f, mac);
			return;
		}
	} else if (!answers_host(skb, f, to)) {
		return;
	}
	if (own) {
		own->duplicate_ns = now();
		__sync_fetch_and_add(&own->duplicates, 1);
	}
	note_at_mac(DUPLICATE, f, mac);
}

static __always_inline void note_moved(const struct frame *f, const struct claim *c, __u32 place,
				       const __u8 *of, const __u8 *was)
{
	struct what w = { .kind = MOVED };

	set_tags(w.tag, f);
	((__u64 *)w.addr)[0] = c->addr[0];
	((__u64 *)w.addr)[1] = c->addr[1];
	copy_mac(w.mac, c->mac);
	if (of)
		copy_mac(w.of, of);
	copy_mac(w.was, was);
	note(place, &w, true, 1);
}

/*
 * note_reply: somebody answered one of ours about its gateway. True says that it was the
 * same answer as the last at the same time, and has been looked into.
 */
static __always_inline bool note_reply(const struct frame *f, struct endpoint *e, const __u8 *of,
				       const struct claim *c)
{
	struct gateway *g = find_gateway(e, c->addr);
	__u8 was[6] = {};
	bool moved, again;
	__u64 ns;

	if (!g)
		return false;
	ns = now();
	if (g->reply.count && same_mac(g->mac, c->mac) && same_tags(g->reply.tag, f)) {
		again = g->reply.ns == ns;
		g->reply.ns = ns;
		__sync_fetch_and_add(&g->reply.count, 1);
		return again;
	}
	bpf_spin_lock(&e->lock);
	moved = g->reply.count && !same_mac(g->mac, c->mac);
	if (moved) {
		copy_mac(was, g->mac);
		copy_mac(g->other, g->mac);
		g->other_ns = g->reply.ns;
	}
	copy_mac(g->mac, c->mac);
	g->reply.ns = ns;
	g->reply.count++;
	set_tags(g->reply.tag, f);
	bpf_spin_unlock(&e->lock);
	if (moved)
		note_moved(f, c, place_of(of), of, was);
	return false;
}

/* may_be says whether an address under some tags may be leased, or asked for. */
static __always_inline struct hint *may_be(__u32 outer, __u32 inner, const __u64 *addr)
{
	__u64 h = (addr[0] * 31 + addr[1]) * 31 + ((__u64)inner << 32 | outer);
	__u32 slot;

	/* layout.go does the same. */
	slot = MIX(h) >> 52;
	return bpf_map_lookup_elem(&hints, &slot);
}

static __always_inline struct address *lookup(__u32 outer, __u32 inner, const __u64 *addr)
{
	struct address_key key = {
		.outer = outer,
		.inner = inner,
	};

	((__u64 *)key.addr)[0] = addr[0];
	((__u64 *)key.addr)[1] = addr[1];
	return bpf_map_lookup_elem(&addrs, &key);
}

/* place_at is the place of what happens to an address. */
static __always_inline __u32 place_at(const __u64 *addr)
{
	return MIX(addr[0] * 31 + addr[1]) >> 57;
}

static __always_inline void note_claimant(struct address *a, const struct claim *c, struct what *w)
{
	__u64 ns = now();

	if (!(a->flags & TENTATIVE)) {
		w->kind = CONFLICT;
		copy_mac(w->of, a->holder);
		note(place_at(c->addr), w, true, 1);
	}
	if (a->claims && same_mac(a->claimant, c->mac)) {
		a->claimed_ns = ns;
		__sync_fetch_and_add(&a->claims, 1);
		return;
	}
	bpf_spin_lock(&a->lock);
	/* The holder may have changed since. */
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
 * note_probe: mac asks whether it may take an address that is leased. To who is about
 * to take it as well that is a conflict (RFC 5227 §2.1.1, RFC 4862 §5.4.3); to who has
 * it, it is none: the prober will hear so. Which, user space knows.
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

/* note_answer keeps an answer to all, but for what is the last one again. */
static __always_inline void note_answer(const struct frame *f, struct address *a, const struct claim *c, bool own)
{
	struct answer *r = &a->recent[(a->replies - 1) & (RECENT - 1)];
	__u64 ns = now();

	if (same_mac(r->mac, c->mac)) {
		if (r->ns == ns && same_tags(r->tag, f))
			return;
	} else if (own && r->ns) {
		note_moved(f, c, place_at(c->addr), NULL, r->mac);
	}
	bpf_spin_lock(&a->lock);
	r = &a->recent[a->replies & (RECENT - 1)];
	r->ns = ns;
	set_tags(r->tag, f);
	copy_mac(r->mac, c->mac);
	a->replies++;
	bpf_spin_unlock(&a->lock);
}

/* same_claim says whether a claim is the one that was looked into last. */
static __always_inline bool same_claim(const struct again *l, const struct what *w, bool to_all)
{
	const __u64 *x = (const __u64 *)l->what.addr, *y = (const __u64 *)w->addr;

	return x[0] == y[0] && x[1] == y[1] && same_mac(l->what.mac, w->mac) &&
	       l->what.tag[0] == w->tag[0] && l->what.tag[1] == w->tag[1] &&
	       l->what.tag[2] == w->tag[2] && l->to_all == to_all;
}

/*
 * note_claim looks at who says that an address is theirs: a claimant, if one of
 * ours holds it. The holder's own frames, reflected by a switch or seen because
 * a sibling got them, are no claimant's. An answer to all about a gateway is
 * what those who asked with no address of their own get (RFC 4861 §7.2.4).
 */
static __always_inline void note_claim(const struct frame *f, const struct claim *c, bool to_all)
{
	struct address *a = NULL;
	bool may;
	struct what w = {};
	struct again *l;
	struct hint *h;
	__u32 slot;

	to_all = to_all && c->answer;
	h = may_be(f->tag[0], f->tag[1], c->addr);
	may = h && (h->leased || (to_all && h->asked)) && !f->tag[2];
	/* Answers to ARP go to one MAC, whatever the tag: no need to look. */
	if (!may) {
		if (!to_all || f->proto != bpf_htons(ETH_P_IPV6))
			return;
		h = may_be(ANY_TAGS, ANY_TAGS, c->addr);
		if (!h || !h->asked)
			return;
	}
	set_tags(w.tag, f);
	((__u64 *)w.addr)[0] = c->addr[0];
	((__u64 *)w.addr)[1] = c->addr[1];
	copy_mac(w.mac, c->mac);
	slot = place_at(c->addr) & (AGAIN - 1);
	l = bpf_map_lookup_elem(&lately, &slot);
	if (!l)
		return;
	if (l->ns == now() && same_claim(l, &w, to_all)) {
		if (l->what.kind == CONFLICT)
			note(place_at(c->addr), &l->what, true, 1);
		return;
	}
	if (may)
		a = lookup(f->tag[0], f->tag[1], c->addr);
	if (a && (a->flags & LEASED) && c->probe)
		note_probe(a, c);
	else if (a && (a->flags & LEASED) && !same_mac(a->holder, c->mac))
		note_claimant(a, c, &w);
	if (a && (a->flags & GATEWAY) && to_all)
		note_answer(f, a, c, true);
	/* fe80::1 is a gateway's on many VLANs, and another's on each. */
	if (!a && to_all && f->proto == bpf_htons(ETH_P_IPV6)) {
		a = lookup(ANY_TAGS, ANY_TAGS, c->addr);
		if (a && (a->flags & GATEWAY))
			note_answer(f, a, c, false);
	}
	l->what = w;
	l->to_all = to_all;
	l->ns = now();
}

/*
 * from_host says whether the source of a frame is a MAC of this host. Where it is, the
 * frame shows nothing of the VLAN.
 */
static __always_inline bool from_host(struct __sk_buff *skb, struct frame *f, const __u8 *mac,
				      const __u8 *to)
{
	struct mac_key key = {};
	struct endpoint *own;
	__u32 kind;
	bool right;

	if (!mac_may_be_local(mac))
		return false;
	copy_mac(key.mac, mac);
	own = find(&key, f, &right);
	if (own) {
		if (right)
			note_own(skb, f, own, mac, to);
		return true;
	}
	kind = local_kind(mac);
	if (kind == PARENT)
		note_own(skb, f, NULL, mac, to);
	return kind;
}

SEC("tc")
int ingress(struct __sk_buff *skb)
{
	unsigned char *eth = reach(skb, ETH_HLEN);
	struct mac_key key = {};
	struct endpoint *e = NULL;
	struct claim c = {};
	struct frame f = {};
	bool right, to_all, local, claims = false;
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
	local = from_host(skb, &f, from, key.mac);
	if (!local)
		note_vlan(f.tag[0] & VID_MASK, f.frames, from);
	if (!to_all) {
		e = find(&key, &f, &right);
		if (e && !right) {
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
	/* The parent's own claim is a probe of this host's that came back. */
	if (!claims || (local && local_kind(c.mac) == PARENT))
		return TC_ACT_UNSPEC;
	if (e && c.answer && note_reply(&f, e, key.mac, &c))
		return TC_ACT_UNSPEC;
	note_claim(&f, &c, to_all);
	return TC_ACT_UNSPEC;
}

/* emit puts the frame of a test run out of the interface named in cb[0]. */
SEC("tc")
int emit(struct __sk_buff *skb)
{
	return bpf_clone_redirect(skb, skb->cb[0], 0);
}

/* bpf_ktime_get_ns is for GPL programs only. */
char _license[] SEC("license") = "GPL";
