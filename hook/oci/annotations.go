package oci

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// prefix is that of Lanyard's annotations.
const prefix = "io.lanyard."

// annotationKeys are the known annotations. The order decides which of two equally near keys an
// error about a typo proposes.
var annotationKeys = []string{
	prefix + "network", prefix + "ip", prefix + "ip6", prefix + "mac",
	prefix + "interface", prefix + "mtu", prefix + "verify", prefix + "default-route", prefix + "networks",
}

// Parse decodes the annotations of a state into a request. ok is false if the state has no
// io.lanyard. annotation. An unknown io.lanyard. key is an error, because a typo must not start
// a container off the network. So is a key with a misspelt prefix, see isMisspelt. Parse ignores
// other similar keys (io.lanyrd.). A state without a pid is an error.
//
// Annotations are hostile input: in Kubernetes, any author of a pod sets them. No value is used
// to build a path before it is checked.
func Parse(s *specs.State) (r hook.Request, ok bool, err error) {
	wants, ok, err := decodeWants(s)
	if err != nil || !ok {
		return hook.Request{}, ok, err
	}
	if s.Pid <= 0 {
		return hook.Request{}, true, fmt.Errorf(
			"state of container %q has no pid (status %q): list the hook under createRuntime or prestart", s.ID, s.Status)
	}
	o, err := originOf(s.Annotations)
	if err != nil {
		return hook.Request{}, true, fmt.Errorf("container %q: %w", s.ID, err)
	}
	return hook.Request{Container: s.ID, Name: o.name, Pid: s.Pid, Pod: o.pod, Wants: wants}, true, nil
}

// decodeWants decodes the interfaces that a container requests. It works in every stage: the
// state needs no pid. ok is false if the state has no io.lanyard. annotation.
func decodeWants(s *specs.State) (wants []hook.Want, ok bool, err error) {
	ours, misspelt := map[string]string{}, ""
	for k, v := range s.Annotations {
		if strings.HasPrefix(k, prefix) {
			ours[k] = v
		} else if isMisspelt(k) && (misspelt == "" || k < misspelt) {
			misspelt = k
		}
	}
	if misspelt != "" {
		return nil, true, misspeltError(misspelt)
	}
	if len(ours) == 0 {
		return nil, false, nil
	}
	if err := checkKeys(ours); err != nil {
		return nil, true, err
	}
	wants, err = decodeKeys(ours)
	return wants, true, err
}

// Ours reports whether a state has an io.lanyard. annotation, misspelt or not. Without one there
// is nothing to detach, and the caller does not open the database.
func Ours(s *specs.State) bool {
	for k := range s.Annotations {
		if strings.HasPrefix(k, prefix) || isMisspelt(k) {
			return true
		}
	}
	return false
}

// isMisspelt reports whether a key has the prefix io.lanyard. in another case, without its last dot,
// with another character instead of that dot, such as the slash that most keys of Kubernetes have, or
// after characters that are neither letters nor digits, such as a quote or a space. A letter or digit
// instead of the dot makes it the key of another program. The hooks.d files match the same
// keys (packaging/hooks.d/lanyard.json.in): otherwise the engine would not run the hook, and the
// container would start off the network without an error.
func isMisspelt(key string) bool {
	if strings.HasPrefix(key, prefix) {
		return false
	}
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}
	word := strings.TrimLeftFunc(key, other)
	last := len(prefix) - 1
	return len(word) >= last && strings.EqualFold(word[:last], prefix[:last]) &&
		(len(word) == last || other(rune(word[last])))
}

// misspeltError returns the error for a key that isMisspelt reports.
func misspeltError(key string) error {
	if strings.HasPrefix(key, `"`) {
		return fmt.Errorf("annotation %s: the key begins with a quote: podman 5.0 and later takes --annotation literally; "+
			"leave out the CSV quotes that podman 4 needs", network.Clip(key))
	}
	return fmt.Errorf("annotation %s: the prefix is misspelt: write %q, in lower case and with nothing before it, "+
		"and then a name such as \"network\"", network.Clip(key), prefix)
}

// checkKeys returns an error if an io.lanyard. key is unknown, naming the nearest known key.
func checkKeys(ours map[string]string) error {
	var bad []string
	for k := range ours {
		if !slices.Contains(annotationKeys, k) && !isSysctl(k) {
			bad = append(bad, k)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad) // the same state gives the same error each time
	if near := network.Nearest(bad[0], annotationKeys); near != "" {
		return fmt.Errorf("annotation %q is unknown: did you mean %q?", bad[0], near)
	}
	return fmt.Errorf("annotation %q is unknown: use one of %s, %s…", bad[0], strings.Join(annotationKeys, ", "),
		sysctlPrefix)
}

// decodeKeys decodes both forms: io.lanyard.networks for several interfaces, or io.lanyard.network
// and its accompanying keys for one.
func decodeKeys(ours map[string]string) ([]hook.Want, error) {
	several, set := ours[prefix+"networks"]
	if !set {
		w, err := decodeWant(ours)
		return []hook.Want{w}, err
	}
	var mode verify.Mode
	for _, k := range slices.Sorted(maps.Keys(ours)) {
		v := ours[k]
		switch {
		case k == prefix+"networks":
		case strings.HasPrefix(k, prefix+"sysctl."):
			return nil, fmt.Errorf("annotations %q and %q contradict each other: sysctls need %q", prefix+"networks", k,
				prefix+"network")
		case k != prefix+"verify":
			return nil, fmt.Errorf("annotations %q and %q contradict each other: put every setting into the first",
				prefix+"networks", k)
		default:
			var err error
			if mode, err = verify.ParseMode(v); err != nil {
				return nil, fmt.Errorf("annotation %q: %w", k, err)
			}
		}
	}
	list, err := decodeSelections(several, mode)
	if err != nil {
		return nil, fmt.Errorf("annotation %q: %w", prefix+"networks", err)
	}
	return list, nil
}

// decodeWant decodes the single form: one network, one interface.
func decodeWant(ours map[string]string) (w hook.Want, err error) {
	if w.Network = ours[prefix+"network"]; w.Network == "" {
		return w, errors.New(`annotation "io.lanyard.network" is missing: name the network to attach to`)
	}
	decoders := []struct {
		key    string
		decode func(string) error
	}{
		{"network", network.ValidName},
		{"ip", func(v string) error { return addAddr(&w, v, netip.Addr.Is4, "an IPv4 address such as 192.168.50.9") }},
		{"ip6", func(v string) error { return addAddr(&w, v, netip.Addr.Is6, "an IPv6 address such as fd50::9") }},
		{"mac", w.SetMAC},
		{"interface", func(v string) error { w.Interface = v; return link.ValidName(v) }},
		{"mtu", func(v string) error { return setMTU(&w, v) }},
		{"verify", func(v string) (err error) { w.Verify, err = verify.ParseMode(v); return err }},
		{"default-route", func(v string) error { return setDefaultRoute(&w, v) }},
	}
	for _, d := range decoders {
		v, set := ours[prefix+d.key]
		if !set {
			continue
		}
		if err := d.decode(v); err != nil {
			return w, fmt.Errorf("annotation %q: %w", prefix+d.key, err)
		}
	}
	w.Sysctls, err = decodeSysctls(ours)
	return w, err
}

// addAddr adds an address to w. family returns whether the address is of the expected family, and
// example completes the error.
func addAddr(w *hook.Want, v string, family func(netip.Addr) bool, example string) error {
	a, err := netip.ParseAddr(v)
	if err != nil || !family(a) || !hook.Requestable(a) {
		return fmt.Errorf("%q is not %s", v, example)
	}
	w.Addrs = append(w.Addrs, a)
	return nil
}

// setDefaultRoute sets whether the interface takes the default routes: "true" or "false".
func setDefaultRoute(w *hook.Want, v string) error {
	if v != "true" && v != "false" {
		return fmt.Errorf("%s is neither true nor false", network.Clip(v))
	}
	takes := v == "true"
	w.Default = &takes
	return nil
}

// setMTU sets the MTU of w, in bytes.
func setMTU(w *hook.Want, v string) (err error) {
	if w.MTU, err = strconv.Atoi(v); err != nil || w.MTU < hook.MinMTU || w.MTU > hook.MaxMTU {
		return fmt.Errorf("%q is not an MTU: use a number of bytes from %d to %d", v, hook.MinMTU, hook.MaxMTU)
	}
	return nil
}
