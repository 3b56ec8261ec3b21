// Package metrics shows the state of Lanyard to Prometheus. Every collection reads the records, the
// trunk programs' counters and the pools again. No value is cached.
package metrics

import (
	"context"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

// collectTimeout limits one collection: it waits for the database like every command.
const collectTimeout = 10 * time.Second

// The labels of metrics about one attachment, about one subnet.
var (
	ofAttachment = []string{"network", "container", "interface"}
	ofSubnet     = []string{"network", "subnet"}
)

func desc(name, help string, labels []string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("lanyard_"+name, help, append(labels[:len(labels):len(labels)], more...), nil)
}

var (
	buildInfo   = desc("build_info", "Always 1; the label is the version.", nil, "version")
	success     = desc("collect_success", "1 if everything could be read, 0 if something is missing below.", nil)
	attachments = desc("attachments", "Attachments by state.", nil, "network", "state")
	verdict     = desc("attachment_verdict", "1 for the last verdict of an attachment, with its code as a label.",
		ofAttachment, "verdict")
	good = desc("attachment_good", "1 if the last verdict of an attachment is good, 0 if it is off the LAN.", ofAttachment)
	rtt  = desc("attachment_gateway_rtt_seconds", "Round trip to the gateway at the last verdict; none if it was silent.",
		ofAttachment)
	frames = desc("attachment_frames_total", "Frames on the trunk since the start, by direction and by whether their "+
		"VLAN tag was right.", ofAttachment, "direction", "tag")
	bytes   = desc("attachment_bytes_total", "Bytes of frames with the right VLAN tag.", ofAttachment, "direction")
	dropped = desc("attachment_wrong_tag_dropped_total", "Sent frames that were dropped for a wrong VLAN tag.",
		ofAttachment)
	anomalies = desc("attachment_anomalies_total", "Frames that should not have been since the start, by kind.",
		ofAttachment, "kind")
	guardDropped = desc("attachment_guard_dropped_total", "Frames that the guard dropped, by direction and reason.",
		ofAttachment, "direction", "reason")
	watched  = desc("attachment_watched", "1 if the trunk program counts the frames of an attachment.", ofAttachment)
	parentUp = desc("parent_up", "1 if the parent of a network exists, is up and has a carrier.", nil, "network", "parent")
	poolSize = desc("pool_addresses", "Addresses of a subnet that can be given out without a request by name.", ofSubnet)
	poolFree = desc("pool_free_addresses", "Of these, addresses that are not in use.", ofSubnet)
	leases   = desc("pool_leases", "Leases of a subnet by state.", ofSubnet, "state")
)

var all = []*prometheus.Desc{buildInfo, success, attachments, verdict, good, rtt, frames, bytes, dropped, anomalies,
	guardDropped, watched, parentUp, poolSize, poolFree, leases}

// Collector collects the metrics of a host.
type Collector struct {
	Lanyard *wiring.Lanyard
	Version string
	// Failed is called with each error of reading.
	Failed func(error)
}

var _ prometheus.Collector = Collector{}

// Describe implements [prometheus.Collector].
func (c Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range all {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (c Collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	r := reading{Collector: c, out: out, complete: true}
	r.gauge(buildInfo, 1, c.Version)
	r.attachments(ctx)
	r.networks(ctx)
	r.gauge(success, number(r.complete))
}

// Registry returns a registry with the collector.
func (c Collector) Registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	return r
}

// reading is one collection.
type reading struct {
	Collector
	out      chan<- prometheus.Metric
	complete bool
}

func (r *reading) gauge(d *prometheus.Desc, v float64, labels ...string) {
	r.send(d, prometheus.GaugeValue, v, labels)
}

func (r *reading) counter(d *prometheus.Desc, v uint64, labels ...string) {
	r.send(d, prometheus.CounterValue, float64(v), labels)
}

// send sends one metric. Runtimes choose the ids of containers: they may be no UTF-8.
func (r *reading) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "?")
	}
	r.out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

// failed reports an error, if there is one, and whether there was one.
func (r *reading) failed(err error) bool {
	if err == nil {
		return false
	}
	r.complete = false
	r.Failed(err)
	return true
}

func (r *reading) attachments(ctx context.Context) {
	recs, err := r.Lanyard.Attachments(ctx)
	if r.failed(err) {
		return
	}
	changes, err := r.Lanyard.Changes(recs)
	r.failed(err)
	type key struct{ network, state string }
	counts := map[key]int{}
	// podman keeps the id of a container that it restarts, and the record of the run before may still
	// exist: only the newest is shown.
	slices.SortFunc(recs, func(a, b hook.Attachment) int { return b.Created.Compare(a.Created) })
	seen := map[string]bool{}
	for _, a := range recs {
		counts[key{a.Network, string(a.State)}]++
		id := strings.Join(labelsOf(a), "\n")
		if a.State == hook.Attached && !seen[id] {
			seen[id] = true
			r.attachment(a, changes[a.ID])
		}
	}
	for k, n := range counts {
		r.gauge(attachments, float64(n), k.network, k.state)
	}
}

// labelsOf returns the labels of an attachment. Its container is the first of those that share the
// interface, or the pod if none runs, or the attachment's id.
func labelsOf(a hook.Attachment) []string {
	container := a.ID.String()
	switch {
	case len(a.Containers) > 0:
		container = a.Containers[0].ID
	case a.Pod.Sandbox != "":
		container = a.Pod.String()
	}
	return []string{a.Network, container, a.Interface}
}

// attachment collects one attachment.
func (r *reading) attachment(a hook.Attachment, changes []verify.Change) {
	labels := labelsOf(a)
	with := func(more ...string) []string { return append(labels[:3:3], more...) }
	last, _ := a.LastVerdict()
	code, took := last.Code, last.RTT
	for _, c := range changes {
		if c.Code != "" {
			code, took = c.Code, 0
			break
		}
	}
	if code != "" { // --verify off
		r.gauge(verdict, 1, with(string(code))...)
		r.gauge(good, number(code.Good()), labels...)
	}
	if took > 0 {
		r.gauge(rtt, took.Seconds(), labels...)
	}
	now, err := r.Lanyard.Evidence(a)
	r.gauge(watched, number(err == nil), labels...)
	if err == nil {
		r.evidence(a, now, with)
	}
	g, err := r.Lanyard.Guarded(a)
	if r.failed(err) || g == nil {
		return
	}
	for reason, n := range g.OutDropped {
		r.counter(guardDropped, n, with("out", reason)...)
	}
	for reason, n := range g.InDropped {
		r.counter(guardDropped, n, with("in", reason)...)
	}
}

func (r *reading) evidence(a hook.Attachment, now verify.Evidence, with func(more ...string) []string) {
	n := now.Counters
	r.counter(frames, n.OutFrames, with("out", "right")...)
	r.counter(frames, n.OutWrong, with("out", "wrong")...)
	r.counter(frames, n.InFrames, with("in", "right")...)
	r.counter(frames, n.InWrong, with("in", "wrong")...)
	r.counter(bytes, n.OutBytes, with("out")...)
	r.counter(bytes, n.InBytes, with("in")...)
	r.counter(dropped, n.Dropped, with()...)
	var before verify.Evidence
	if a.Evidence != nil {
		before = *a.Evidence
	}
	kinds := map[verify.Kind]uint64{}
	for _, one := range verify.Anomalies(before, now) {
		kinds[one.Kind] += one.Count
	}
	for kind, count := range kinds {
		r.counter(anomalies, count, with(string(kind))...)
	}
}

func (r *reading) networks(ctx context.Context) {
	defs, broken := network.LoadAll(r.Lanyard.Networks)
	for _, err := range broken {
		r.failed(err)
	}
	for _, def := range defs {
		p, err := r.Lanyard.Parent(def)
		why := "missing"
		if err == nil {
			why, err = r.Lanyard.Host.Down(p)
			r.failed(err)
		}
		r.gauge(parentUp, number(why == "" && err == nil), def.Name, def.Parent)
		usage, err := r.Lanyard.Summary(ctx, def)
		if r.failed(err) {
			continue
		}
		for _, u := range usage {
			subnet := u.Subnet.String()
			r.gauge(poolSize, float(u.Size), def.Name, subnet)
			r.gauge(poolFree, float(u.Free), def.Name, subnet)
			r.gauge(leases, float64(u.Counts.Held), def.Name, subnet, "held")
			r.gauge(leases, float64(u.Counts.Quarantined), def.Name, subnet, "quarantined")
			r.gauge(leases, float64(u.Counts.Declined), def.Name, subnet, "declined")
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func float(n *big.Int) float64 {
	f, _ := new(big.Float).SetInt(n).Float64()
	return f
}
