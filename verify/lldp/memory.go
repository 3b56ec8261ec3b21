package lldp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Memory is a directory with the last frame that was heard on each link. It is below /run: after a
// boot, the cables may be others.
type Memory string

func (m Memory) file(link string) string { return filepath.Join(string(m), link+".json") }

// Save keeps what was heard on a link.
func (m Memory) Save(link string, n Neighbour) (err error) {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(m), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(m), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), m.file(link))
}

// Load returns what was last heard on a link, and when. It returns nil if nothing was.
func (m Memory) Load(link string) (n *Neighbour, at time.Time, err error) {
	text, err := os.ReadFile(m.file(link))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, at, nil
	}
	if err != nil {
		return nil, at, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return nil, at, fmt.Errorf("%s: %w", m.file(link), err)
	}
	info, err := os.Stat(m.file(link))
	if err != nil {
		return nil, at, err
	}
	return n, info.ModTime(), nil
}

// Known is what is known of the switch port at the other end of a link.
type Known struct {
	Neighbour *Neighbour // nil if nothing is known
	From      string     // "lldpd" if it listens on the link, or "frame"; "" if nothing is known
	At        time.Time  // when the frame was heard; zero for lldpd, which knows what is valid now
}

// Ask returns what lldpd knows of a link. If it does not run or does not listen there, Ask returns what
// was last heard.
func (m Memory) Ask(ctx context.Context, link string) (k Known, err error) {
	n, running, err := FromDaemon(ctx, link)
	if running {
		return Known{Neighbour: n, From: "lldpd"}, err
	}
	n, at, err := m.Load(link)
	if n != nil {
		k = Known{Neighbour: n, From: "frame", At: at}
	}
	return k, err
}

// Valid reports whether lldpd knows the port, or the frame's TTL has not expired.
func (k Known) Valid() bool {
	return k.Neighbour != nil && (k.At.IsZero() || time.Since(k.At) <= time.Duration(k.Neighbour.TTL)*time.Second)
}

// String returns the port and its source; "" if the port is unknown.
func (k Known) String() string {
	switch {
	case k.Neighbour == nil:
		return ""
	case k.At.IsZero():
		return fmt.Sprintf("%s (by lldpd)", k.Neighbour)
	}
	return fmt.Sprintf("%s (heard %v ago)", k.Neighbour, time.Since(k.At).Round(time.Second))
}

// Says returns what the switch says of frames with these tags on the link's port, "" if nothing is known.
func (k Known) Says(link string, tags ether.Tags) string {
	switch {
	case k.Neighbour == nil:
		return ""
	case k.At.IsZero():
		return k.Neighbour.Says(tags)
	}
	return k.Neighbour.SaidAgo(time.Since(k.At), link, tags)
}

// Says returns what the switch says of frames with these tags on the port.
func (n Neighbour) Says(tags ether.Tags) string {
	switch text := n.Differs(tags); {
	case text != "":
		return text
	case len(tags) == 0 && n.PVID != 0:
		return fmt.Sprintf("%s has untagged frames in VLAN %d", n, n.PVID)
	case len(tags) > 0 && len(n.VLANs) > 0 && tags[0].TPID == ether.Dot1Q:
		return fmt.Sprintf("%s carries VLAN %d: look at the ports behind it", n, tags[0].VID)
	case len(tags) == 0 && len(n.VLANs) > 0:
		return fmt.Sprintf("%s names %s, and none for untagged frames", n, n.Named())
	case len(n.VLANs) > 0:
		return fmt.Sprintf("it is %s, which names %s of 802.1Q only", n, n.Named())
	}
	return fmt.Sprintf("it is %s, which does not name its VLANs", n)
}

// SaidAgo returns what the switch said in a frame that a link received some time ago: what Says does,
// while the frame is valid. After that, the port may carry other VLANs (IEEE 802.1AB-2016, TTL TLV).
func (n Neighbour) SaidAgo(age time.Duration, link string, tags ether.Tags) string {
	age = age.Round(time.Second)
	if age > time.Duration(n.TTL)*time.Second {
		return fmt.Sprintf("it was %s %v ago: \"lanyard lldp %s\" hears what it carries now", n, age, link)
	}
	return fmt.Sprintf("%s (heard %v ago)", n.Says(tags), age)
}
