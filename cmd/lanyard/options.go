package main

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// option is a setting that has two spellings: --parent eth0 and -o parent=eth0.
type option struct {
	value string
	typed string // the spelling that the user typed, up to the value
}

// set sets the value. It returns a usage error if another value is set already.
func (o *option) set(typed, value string) error {
	if value == "" {
		return usagef("%s is empty", strings.TrimRight(typed, " ="))
	}
	if o.value != "" && o.value != value {
		return usagef("%s%s and %s%s contradict each other: give one", o.typed, o.value, typed, value)
	}
	*o = option{value, typed}
	return nil
}

// bytes returns the value of an MTU in bytes, 0 if none was given.
func (o *option) bytes() (int, error) {
	if o.value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(o.value)
	if err != nil || n <= 0 {
		return 0, usagef("%s%s is not a number of bytes, such as 1400", o.typed, o.value)
	}
	return n, nil
}

// options are the settings that Docker users pass to the driver by -o.
type options struct {
	driver                             string
	parent, mode, flag, mtu, vlanProto option
}

// field returns a setting by the name of its flag, which is also the name that a
// definition's errors use. It returns nil for a name that -o does not have.
func (o *options) field(flag string) *option {
	switch flag {
	case "parent":
		return &o.parent
	case "mode":
		return &o.mode
	case "mtu":
		return &o.mtu
	case "vlan-proto":
		return &o.vlanProto
	case "flag":
		return &o.flag
	}
	return nil
}

// dockerKeys are the keys of -o: those that Docker documents for its macvlan and ipvlan
// drivers, the MTU key of its other drivers, and vlan_proto for 802.1ad.
var (
	dockerKeys = []string{"parent", "macvlan_mode", "ipvlan_mode", "ipvlan_flag", "com.docker.network.driver.mtu",
		"vlan_proto"}
	flagOfKey = map[string]string{
		"parent": "parent", "macvlan_mode": "mode", "ipvlan_mode": "mode", "ipvlan_flag": "flag",
		"com.docker.network.driver.mtu": "mtu", "vlan_proto": "vlan-proto",
	}
	driverOfKey = map[string]string{
		"macvlan_mode": network.DriverMacvlan, "ipvlan_mode": network.DriverIPvlan, "ipvlan_flag": network.DriverIPvlan,
	}
)

func readOptions(c *cli.Context) (o options, err error) {
	o.driver = network.DriverMacvlan
	switch d := c.String("driver"); {
	case d == network.DriverIPvlan:
		o.driver = d
	case c.IsSet("driver") && d != network.DriverMacvlan:
		return o, usagef("-d %q is not supported: use %s or %s", d, network.DriverMacvlan, network.DriverIPvlan)
	}
	for _, flag := range []string{"parent", "mode", "mtu", "vlan-proto"} {
		if !c.IsSet(flag) {
			continue
		}
		if err := o.field(flag).set("--"+flag+" ", c.String(flag)); err != nil {
			return o, err
		}
	}
	for _, w := range c.StringSlice("option") {
		if err := o.read(w); err != nil {
			return o, err
		}
	}
	return o, nil
}

// read reads one -o.
func (o *options) read(word string) error {
	key, value, ok := keyValue(word)
	if !ok {
		return usagef("-o %q has no value: write -o KEY=VALUE", word)
	}
	into := o.field(flagOfKey[key])
	if into == nil {
		hint := didYouMean(key, dockerKeys)
		if hint == "" {
			hint = ": use one of " + strings.Join(dockerKeys, ", ")
		}
		return usagef("-o %q is not a known option%s", key, hint)
	}
	if d := driverOfKey[key]; d != "" && d != o.driver {
		return usagef("-o %s is for -d %s, but the driver is %s", key, d, o.driver)
	}
	return into.set("-o "+key+"=", value)
}

func keyValue(word string) (key, value string, ok bool) { return strings.Cut(word, "=") }

// check validates the definition. Its errors use the spelling that the user typed.
func (o *options) check(def *network.Definition) error {
	_, vid, err := link.ParseParent(def.Parent)
	if err != nil {
		return usagef("%s%v", o.parent.typed, err)
	}
	if def.VLANProto != "" && vid == 0 {
		return usagef("%s%s needs a parent of the form LINK.VLAN", o.vlanProto.typed, o.vlanProto.value)
	}
	if err := def.Validate(); err != nil {
		return usagef("%s", o.inTypedWords(err.Error()))
	}
	return nil
}

// fieldOf matches the beginning of a definition's errors: "mtu: ",
// "subnets[0].gateway: ", `subnets[1].aux-address["nas"]: `, "routes[0].via: ".
var fieldOf = regexp.MustCompile(
	`^(?:subnets\[\d+\]\.)?([a-z0-9-]+)(?:\[\d+\](?:\.(?:dst|via))?|\["([^"]*)"\])?: (.*)$`)

// inTypedWords turns "field: reason" into "--flag reason".
func (o *options) inTypedWords(text string) string {
	m := fieldOf.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	field, key, reason := m[1], m[2], m[3]
	if s := o.field(field); s != nil && s.typed != "" {
		return s.typed + reason
	}
	switch {
	case field == "name":
		return reason
	case field == "subnets":
		return "--subnet " + reason
	case field == "kubernetes-namespaces":
		return "--allow-namespace " + reason
	case field == "routes":
		return "--route " + reason
	case key != "":
		return "--" + field + " " + key + "=" + reason
	}
	return "--" + field + " " + reason
}
