package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Names are the name servers and search domains that a DHCP server has given to an attachment. They
// are in a file, because the hook that mounts a resolv.conf has no access to the database: it runs in
// the container's namespaces, possibly as a user. Every user of the host can read the file.
type Names struct {
	Network string       `json:"network"`
	DNS     []netip.Addr `json:"dns,omitempty"`
	Search  []string     `json:"search,omitempty"`
}

// namesFile returns the path of the file for an attachment. Its name begins with the inode of the
// network namespace, by which the hook finds it.
func (a *Attachment) namesFile(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%d-%s.json", a.Netns.Inode, a.ID))
}

// WriteNames writes the names of the attachment's leases to a file in dir.
func (a *Attachment) WriteNames(dir string) error {
	n := Names{Network: a.Network}
	for _, f := range Families {
		if l := a.ServerLease(f); l != nil {
			n.DNS, n.Search = append(n.DNS, l.DNS...), append(n.Search, l.Search...)
		}
	}
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
