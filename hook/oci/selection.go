package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// selection is one network in the JSON form of io.lanyard.networks. The words
// are those of Multus' network selection.
type selection struct {
	Name      string   `json:"name"`
	Interface string   `json:"interface"`
	IPs       []string `json:"ips"`
	MAC       string   `json:"mac"`
	MTU       int      `json:"mtu"`
	Default   *bool    `json:"default-route"`
}

// selectionKeys are what it may hold, for what a typo is near to.
var selectionKeys = []string{"name", "interface", "ips", "mac", "mtu", "default-route"}

// selections decodes io.lanyard.networks: a JSON array, or the short form
// "web50@eth1,db60@eth2", whose interfaces may be left out. Spaces can replace the commas,
// because podman 4.x splits the whole annotation at commas.
func selections(v string, mode verify.Mode) (wants []hook.Want, err error) {
	if strings.HasPrefix(strings.TrimSpace(v), "[") {
		wants, err = longSelections(v)
	} else {
		wants, err = shortSelections(v)
	}
	if err != nil {
		return nil, err
	}
	for i := range wants {
		wants[i].Verify = mode
	}
	return wants, hook.Compatible(wants)
}

func shortSelections(v string) (wants []hook.Want, err error) {
	var words []string
	for _, list := range strings.Split(v, ",") {
		some := strings.Fields(list)
		if len(some) == 0 {
			some = []string{""} // an error: nothing between two commas
		}
		words = append(words, some...)
	}
	for _, word := range words {
		name, iface, has := strings.Cut(word, "@")
		if has && iface == "" {
			return nil, fmt.Errorf("%.80q names no interface: write NETWORK or NETWORK@INTERFACE", word)
		}
		w := hook.Want{Network: name, Interface: iface}
		if err := names(&w); err != nil {
			return nil, err
		}
		if wants = append(wants, w); len(wants) > hook.MaxWants {
			return nil, fmt.Errorf("there are more than %d networks", hook.MaxWants)
		}
	}
	return wants, nil
}

func longSelections(v string) (wants []hook.Want, err error) {
	dec := json.NewDecoder(strings.NewReader(v))
	var raw []json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("is not a JSON array: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the JSON array")
	}
	if len(raw) == 0 || len(raw) > hook.MaxWants {
		return nil, fmt.Errorf("there are %d networks: name 1 to %d", len(raw), hook.MaxWants)
	}
	for i, text := range raw {
		w, err := longSelection(text)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		wants = append(wants, w)
	}
	return wants, nil
}

func longSelection(text []byte) (w hook.Want, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil || keys == nil {
		return w, errors.New("is not a JSON object")
	}
	if err := knownKeys(keys); err != nil {
		return w, err
	}
	var s selection
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&s); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return w, fmt.Errorf("%s: a JSON %s does not belong here", kind.Field, kind.Value)
		}
		return w, err
	}
	w = hook.Want{Network: s.Name, Interface: s.Interface, Default: s.Default}
	if err := names(&w); err != nil {
		return w, err
	}
	for _, ip := range s.IPs {
		if err := addr(&w, ip, anyFamily, "an address such as 192.168.50.9 or fd50::9"); err != nil {
			return w, fmt.Errorf("ips: %w", err)
		}
	}
	if len(w.Addrs) > 2 || len(w.Addrs) == 2 && w.Addrs[0].Is4() == w.Addrs[1].Is4() {
		return w, errors.New("ips: there are two addresses of one family: an interface has one of each")
	}
	if _, set := keys["mac"]; set {
		if err := mac(&w, s.MAC); err != nil {
			return w, fmt.Errorf("mac: %w", err)
		}
	}
	if _, set := keys["mtu"]; set {
		if err := mtu(&w, fmt.Sprint(s.MTU)); err != nil {
			return w, fmt.Errorf("mtu: %w", err)
		}
	}
	return w, nil
}

func anyFamily(netip.Addr) bool { return true }

func knownKeys(keys map[string]json.RawMessage) error {
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if slices.Contains(selectionKeys, k) {
			continue
		}
		if near := network.Nearest(k, selectionKeys); near != "" {
			return fmt.Errorf("%.80q is unknown: did you mean %q?", k, near)
		}
		return fmt.Errorf("%.80q is unknown: use %s", k, strings.Join(selectionKeys, ", "))
	}
	return nil
}

// names checks what becomes part of paths.
func names(w *hook.Want) error {
	if err := network.ValidName(w.Network); err != nil {
		return err
	}
	if w.Interface == "" {
		return nil
	}
	return link.ValidName(w.Interface)
}
