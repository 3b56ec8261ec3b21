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

// selection is one network in the JSON form of io.lanyard.networks. The field names are those of
// the network selection of Multus.
type selection struct {
	Name      string   `json:"name"`
	Interface string   `json:"interface"`
	IPs       []string `json:"ips"`
	MAC       string   `json:"mac"`
	MTU       int      `json:"mtu"`
	Default   *bool    `json:"default-route"`
}

// selectionKeys are the fields of a selection, in the order in which an error lists them.
var selectionKeys = []string{"name", "interface", "ips", "mac", "mtu", "default-route"}

// decodeSelections decodes io.lanyard.networks: a JSON array, or the short form
// "web50@eth1,db60@eth2", in which "@INTERFACE" is optional. Spaces can replace the commas,
// because podman 4.x splits the whole annotation at commas. mode is the verify mode of every
// interface.
func decodeSelections(v string, mode verify.Mode) (wants []hook.Want, err error) {
	if strings.HasPrefix(strings.TrimSpace(v), "[") {
		wants, err = decodeJSON(v)
	} else {
		wants, err = decodeShort(v)
	}
	if err != nil {
		return nil, err
	}
	for i := range wants {
		wants[i].Verify = mode
	}
	return wants, hook.Compatible(wants)
}

// decodeShort decodes the short form.
func decodeShort(v string) (wants []hook.Want, err error) {
	var words []string
	for _, list := range strings.Split(v, ",") {
		selected := strings.Fields(list)
		if len(selected) == 0 {
			selected = []string{""} // ValidName refuses it: there is no name between two commas
		}
		words = append(words, selected...)
	}
	for _, word := range words {
		name, iface, has := strings.Cut(word, "@")
		if has && iface == "" {
			return nil, fmt.Errorf("%.80q names no interface: write NETWORK or NETWORK@INTERFACE", word)
		}
		w := hook.Want{Network: name, Interface: iface}
		if err := checkNames(&w); err != nil {
			return nil, err
		}
		wants = append(wants, w)
		if len(wants) > hook.MaxWants {
			return nil, fmt.Errorf("there are more than %d networks", hook.MaxWants)
		}
	}
	return wants, nil
}

// decodeJSON decodes the JSON form.
func decodeJSON(v string) (wants []hook.Want, err error) {
	dec := json.NewDecoder(strings.NewReader(v))
	var raw []json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("is not a JSON array: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text follows the JSON array: remove it")
	}
	if len(raw) == 0 || len(raw) > hook.MaxWants {
		return nil, fmt.Errorf("there are %d networks: name 1 to %d", len(raw), hook.MaxWants)
	}
	for i, text := range raw {
		w, err := decodeSelection(text)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		wants = append(wants, w)
	}
	return wants, nil
}

// decodeSelection decodes one element of the JSON form. A field that is missing keeps its zero
// value; one that is present must be valid.
func decodeSelection(text []byte) (w hook.Want, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil || keys == nil {
		return w, errors.New("is not a JSON object")
	}
	if err := checkSelectionKeys(keys); err != nil {
		return w, err
	}
	var s selection
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&s); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return w, fmt.Errorf("%s: cannot be a JSON %s", kind.Field, kind.Value)
		}
		return w, err
	}
	w = hook.Want{Network: s.Name, Interface: s.Interface, Default: s.Default}
	if err := checkNames(&w); err != nil {
		return w, err
	}
	for _, ip := range s.IPs {
		if err := addAddr(&w, ip, anyFamily, "an address such as 192.168.50.9 or fd50::9"); err != nil {
			return w, fmt.Errorf("ips: %w", err)
		}
	}
	if len(w.Addrs) > 2 || len(w.Addrs) == 2 && w.Addrs[0].Is4() == w.Addrs[1].Is4() {
		return w, errors.New("ips: two addresses have the same family: an interface has at most one of each family")
	}
	if _, set := keys["mac"]; set {
		if err := w.SetMAC(s.MAC); err != nil {
			return w, fmt.Errorf("mac: %w", err)
		}
	}
	if _, set := keys["mtu"]; set {
		if err := setMTU(&w, fmt.Sprint(s.MTU)); err != nil {
			return w, fmt.Errorf("mtu: %w", err)
		}
	}
	return w, nil
}

// anyFamily accepts both address families, for addAddr.
func anyFamily(netip.Addr) bool { return true }

// checkSelectionKeys returns an error if a field is unknown, naming the nearest known field.
// encoding/json would accept another case ("Name").
func checkSelectionKeys(keys map[string]json.RawMessage) error {
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

// checkNames returns an error if the network's or the interface's name is invalid. Both become
// parts of paths.
func checkNames(w *hook.Want) error {
	if err := network.ValidName(w.Network); err != nil {
		return err
	}
	if w.Interface == "" {
		return nil
	}
	return link.ValidName(w.Interface)
}
