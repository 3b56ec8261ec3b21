package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Names are the name servers and search domains that DHCP servers and routers have given to an attachment. They
// are in a file, because the hook that mounts a resolv.conf has no access to the database: it runs in
// the container's namespaces, possibly as a user. Every user of the host can read the file.
type Names struct {
	Network string `json:"network"`
	ipam.Resolver
}

// Resolver returns the name servers and search domains that the LAN has given to the attachment: those of DHCP
// servers before those of routers (RFC 8106 §5.3.1).
func (a *Attachment) Resolver() (r ipam.Resolver) {
	for _, f := range Families {
		if l := a.ServerLease(f); l != nil {
			r.Add(l.Resolver)
		}
	}
	if a.SLAAC != nil {
		r.Add(a.SLAAC.Resolver)
	}
	return r
}

// ResolverFor returns the name servers and search domains for an engine that writes resolv.conf itself. It leaves out
// link-local addresses, which engines cannot parse.
func (a *Attachment) ResolverFor(def *network.Definition) ipam.Resolver {
	r := ResolverOf(def, Names{a.Network, a.Resolver()})
	r.DNS = slices.DeleteFunc(slices.Clone(r.DNS), func(a netip.Addr) bool { return a.Zone() != "" })
	return r
}

// ResolverOf returns the name servers and search domains of a network's containers: those of its definition, or
// those that its attachments have learned where that has none.
func ResolverOf(def *network.Definition, all ...Names) ipam.Resolver {
	var learned ipam.Resolver
	for _, n := range all {
		if n.Network == def.Name && def.LearnsNames() {
			learned.Add(n.Resolver)
		}
	}
	r := ipam.Resolver{DNS: def.DNS, Search: def.DNSSearch}
	if len(r.DNS) == 0 {
		r.DNS = learned.DNS
	}
	if len(r.Search) == 0 {
		r.Search = learned.Search
	}
	return r
}

// namesFile returns the path of the file for an attachment. Its name begins with the inode of the
// network namespace, by which the hook finds it.
func (a *Attachment) namesFile(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%d-%s.json", a.Netns.Inode, a.ID))
}

// WriteNames writes the names of the attachment to a file in dir.
func (a *Attachment) WriteNames(dir string) error {
	n := Names{a.Network, a.Resolver()}
	if len(n.DNS)+len(n.Search) == 0 {
		return a.RemoveNames(dir)
	}
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := a.namesFile(dir)
	if err := os.WriteFile(file+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// RemoveNames removes the file of WriteNames, if there is one.
func (a *Attachment) RemoveNames(dir string) error {
	if err := os.Remove(a.namesFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadNames returns the names of the attachments in a network namespace.
func ReadNames(dir string, inode uint64) (all []Names, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), fmt.Sprintf("%d-", inode)) || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the attachment has ended
		}
		var n Names
		if err == nil {
			err = json.Unmarshal(text, &n)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, err
}
