// Package doctor checks what a container's start needs from the host, before one is started: the
// kernel, directories, the service, the links that carry networks, and gateways. It changes no link,
// and no network.
//
// Reading a link (facts.go) and saying what the facts mean (trunk.go) are separate.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// State is the result of a check.
type State string

// The states of a check. Wrong means that containers do not start, start off the LAN, or lose packets.
const (
	OK      State = "ok"
	Warning State = "warning"
	Wrong   State = "wrong"
)

// Result is one result: what was checked, and in Text what was found and what to do.
type Result struct {
	About string `json:"about"` // "kernel", "host", "service", "trunk eth0", "parent eth0.50", "network web"
	Check string `json:"check"`
	State State  `json:"state"`
	Text  string `json:"text"`
}

// Doctor checks the host of an [admin.Admin].
type Doctor struct {
	*admin.Admin
	Files
	// TCX reports whether the kernel has TCX.
	TCX func() (bool, error)
	// Listen is how long to listen for LLDP frames on a trunk that lldpd does not listen on; 0: not.
	Listen time.Duration
	// Switches keeps what is heard.
	Switches lldp.Memory
	// Pins returns the reason why programs cannot be pinned.
	Pins func() error
}

// Files are the paths that are checked.
type Files struct {
	Run      string // directory of the database
	Identity string // file with the host's identity, where that is not the machine id
	Socket   string // of the service
	BTF      string // the kernel's types
	IPv6Off  string // contains 1 if the kernel has no IPv6 (ipv6.disable=1)
}

// Check makes all checks. parent limits those of links and networks to one parent, which need not have
// a network; "" checks the parents of all networks.
func (d *Doctor) Check(ctx context.Context, parent string) []Result {
	defs, broken := network.LoadAll(d.Networks)
	var r results
	d.kernel(r.about("kernel"), defs)
	d.host(ctx, r.about("host"), broken)
	d.service(ctx, r.about("service"), defs)
	d.links(ctx, &r, defs, parent)
	return r.list
}

// Unprivileged makes the checks that a user can make.
func (d *Doctor) Unprivileged(ctx context.Context) []Result {
	var r results
	r.about("host").add(Warning, "privileges",
		"CAP_NET_ADMIN is missing: kernel, links and networks were not checked: run as root")
	d.service(ctx, r.about("service"), nil)
	return r.list
}

// results collects results.
type results struct{ list []Result }

// subject adds the results about one subject.
type subject struct {
	all  *results
	name string
}

func (r *results) about(name string) subject { return subject{r, name} }

func (s subject) add(state State, check, format string, args ...any) {
	s.all.list = append(s.all.list, Result{s.name, check, state, fmt.Sprintf(format, args...)})
}

// addErr adds a wrong result for an error, if there is one, and reports whether there was one.
func (s subject) addErr(check string, err error) bool {
	if err != nil {
		s.add(Wrong, check, "%v", err)
	}
	return err != nil
}

// HasWrong reports whether a check found something wrong.
func HasWrong(list []Result) bool {
	return slices.ContainsFunc(list, func(r Result) bool { return r.State == Wrong })
}
