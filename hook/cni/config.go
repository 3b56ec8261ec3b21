package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// config is the plugin's configuration: the keys of CNI, and those of Lanyard.
type config struct {
	types.PluginConf
	Network       string      `json:"network"`       // of "lanyard network create"
	Interface     string      `json:"interface"`     // "": CNI_IFNAME
	MTU           int         `json:"mtu"`           // 0: the network's
	Verify        verify.Mode `json:"verify"`        // at least as strict as the network
	DefaultRoute  *bool       `json:"default-route"` // nil: see hook.Want
	RuntimeConfig struct {
		IPs []string `json:"ips"`
		MAC string   `json:"mac"`
	} `json:"runtimeConfig"`
}

// Keys of a configuration. Keys with a dot or a slash belong to CNI (cni.dev/valid-attachments) or
// to the organization that they name.
var (
	ownKeys = []string{"network", "interface", "mtu", "verify", "default-route"}
	cniKeys = []string{"cniVersion", "cniVersions", "name", "type", "capabilities", "args", "dns", "runtimeConfig",
		"prevResult", "disableCheck", "disableGC"}
)

// cniArgs are the CNI_ARGS that name a pod, and those by which some runtimes choose an address and
// a MAC (nerdctl; the plugins host-local and macvlan read them). The names of the fields are those
// of the arguments.
type cniArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE, K8S_POD_NAME, IP, MAC types.UnmarshallableString //nolint:staticcheck // see above
}

// parse decodes the configuration from stdin, without prevResult. It refuses unknown keys: a typo
// in "verify" must not make the network less strict.
func parse(stdin []byte) (*config, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, oneLine(err), "")
	}
	var c config
	for k := range keys {
		switch {
		case k == "ipam":
			return nil, invalid("key \"ipam\": the Lanyard network assigns the addresses: remove the key")
		case slices.Contains(ownKeys, k), slices.Contains(cniKeys, k), strings.ContainsAny(k, "./"):
		default:
			hint := "use " + strings.Join(ownKeys, ", ")
			if near := network.Nearest(k, ownKeys); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			return nil, invalid("key %s is unknown: %s", network.Clip(k), hint)
		}
	}
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, oneLine(err), "")
	}
	if c.Network == "" {
		return nil, invalid(`key "network" is missing: name a network of "lanyard network ls"`)
	}
	if err := cniversion.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, oneLine(err), "")
	}
	return &c, nil
}

// request returns the request of an ADD.
func (c *config) request(args *skel.CmdArgs) (r hook.Request, err error) {
	w := hook.Want{Network: c.Network, Interface: c.Interface, MTU: c.MTU, Verify: c.Verify, Default: c.DefaultRoute}
	if w.Interface == "" {
		w.Interface = args.IfName
	}
	extra, err := parseArgs(args.Args)
	if err != nil {
		return r, err
	}
	if err := c.choose(&w, extra); err != nil {
		return r, err
	}
	if err := w.Validate(); err != nil {
		return r, invalid("%v", err)
	}
	pod, err := podOf(args, extra)
	if err != nil {
		return r, err
	}
	r = hook.Request{Container: c.holder(args.ContainerID, args.IfName), Netns: args.Netns, Pod: pod,
		Wants: []hook.Want{w}}
	if err := hook.ValidID(r.Container); err != nil {
		return r, types.NewError(types.ErrInvalidEnvironmentVariables, oneLine(err), "")
	}
	return r, nil
}

// choose sets the addresses and the MAC that the runtime chooses: by capabilities, or by CNI_ARGS
// where a capability does not say it.
func (c *config) choose(w *hook.Want, extra cniArgs) error {
	key, ips := "runtimeConfig.ips", c.RuntimeConfig.IPs
	if len(ips) == 0 && extra.IP != "" {
		key, ips = "CNI_ARGS: IP", strings.Split(string(extra.IP), ",")
	}
	for _, text := range ips {
		a, err := netip.ParseAddr(text)
		if p, perr := netip.ParsePrefix(text); perr == nil {
			a, err = p.Addr(), nil // the network has the length of the prefix
		}
		if err != nil {
			return invalid("%s: %s is not an address such as 192.168.50.9/24", key, network.Clip(text))
		}
		w.Addrs = append(w.Addrs, a)
	}
	key, mac := "runtimeConfig.mac", c.RuntimeConfig.MAC
	if mac == "" {
		key, mac = "CNI_ARGS: MAC", string(extra.MAC)
	}
	if mac == "" {
		return nil
	}
	if err := w.SetMAC(mac); err != nil {
		return invalid("%s: %v", key, err)
	}
	return nil
}

// gcKeys are the keys of the attachments that a GC keeps. The specification has had the second one until
// libcni 1.2.3, which sends both.
var gcKeys = []string{"cni.dev/valid-attachments", "cni.dev/attachments"}

// validAttachments returns the attachments that a GC keeps. null is an empty list. Without a list it returns an
// error: the runtime has not said which attachments are in use ("cnitool gc").
func validAttachments(stdin []byte) ([]types.GCAttachment, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, oneLine(err), "")
	}
	i := slices.IndexFunc(gcKeys, func(k string) bool { _, has := keys[k]; return has })
	if i < 0 {
		return nil, invalid("key %q is missing: all attachments that exist are kept: list those in use, or [] for none",
			gcKeys[0])
	}
	var valid []types.GCAttachment
	if err := json.Unmarshal(keys[gcKeys[i]], &valid); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, gcKeys[i]+": "+oneLine(err), "")
	}
	for n, a := range valid {
		if a.ContainerID == "" || a.IfName == "" {
			return nil, invalid("%s[%d]: containerID and ifname must both be set", gcKeys[i], n)
		}
	}
	return valid, nil
}

// holder returns the id of a container's reference to the attachment. CNI identifies an attachment
// by these three words, in which no colon is allowed.
func (c *config) holder(container, ifname string) string {
	return container + ":" + ifname + ":" + c.Name
}

// parseArgs decodes CNI_ARGS. Arguments that are not Lanyard's are ignored.
func parseArgs(text string) (a cniArgs, err error) {
	a.IgnoreUnknown = true
	if err := types.LoadArgs(text, &a); err != nil {
		return a, invalidArgs(err)
	}
	return a, nil
}

// podOf returns the Kubernetes pod of a container; zero if the runtime names none. The author of a
// pod cannot change the arguments.
func podOf(args *skel.CmdArgs, extra cniArgs) (p hook.Pod, err error) {
	if !strings.Contains(args.Args, "K8S_POD_") {
		return p, nil
	}
	p = hook.Pod{Sandbox: args.ContainerID, Namespace: string(extra.K8S_POD_NAMESPACE), Name: string(extra.K8S_POD_NAME)}
	if hook.ValidID(p.Namespace) != nil || hook.ValidID(p.Name) != nil {
		return p, invalidArgs(errors.New("K8S_POD_NAMESPACE and K8S_POD_NAME must both name the pod"))
	}
	return p, nil
}

// invalidArgs returns the error for CNI_ARGS.
func invalidArgs(err error) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+oneLine(err), "")
}

// invalid returns the error for a configuration.
func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}
