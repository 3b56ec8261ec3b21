package main

import "github.com/urfave/cli/v2"

// createFlags returns the flags of "network create".
func createFlags() []cli.Flag {
	return []cli.Flag{
		textOption("parent",
			"`LINK` host link that carries the network, such as eth0 or eth0.50 (default: a dummy link, isolated)"),
		listOption("subnet", "`PREFIX` subnet of the LAN, such as 192.168.50.0/24; one or more"),
		listOption("gateway", "`ADDRESS` gateway of a subnet, or none (default: the subnet's first usable address)"),
		listOption("ip-range", "`PREFIX` part of a subnet for containers' addresses (default: the whole subnet)"),
		textOption("host-slice", "`NUMBER/HOSTS` this host's part of the ranges, such as 2/8 for the second of 8 hosts that "+
			"keep their own leases, or with --on-outage slice (default: all)"),
		listOption("aux-address", "`NAME=ADDRESS` address of another machine, not for containers"),
		textOption("leases", "`STORE` store of the leases: etcd, which hosts share (default: this host's database)"),
		textOption("on-outage", "`HOW` new containers while that store is out of reach: refuse, or slice for addresses of "+
			"--host-slice, which it keeps for this host (default: refuse)"),
		textOption("allocate",
			"`HOW` allocation of addresses: sequential, or stable, by the container's name (default: sequential)"),
		textOption("mac-from", "`SOURCE` source of MACs: host, or address for 02:42 and the IPv4 address (default: host)"),
		textOption("ipam",
			"`MODE` dhcp: addresses from the LAN's DHCP servers; none: workloads configure their own (default: Lanyard's own)",
			"ipam-driver"),
		textOption("ipv6-mode",
			"`MODE` IPv6 addresses: leased; slaac, from router advertisements; both; or dhcp, from DHCPv6 servers "+
				"(default: leased)"),
		textOption("ipv6-addresses",
			"`FORM` addresses from routers: eui64, by the MAC; or stable-privacy, by the container's name and the prefix "+
				"(default: eui64)"),
		textOption("mode",
			"`MODE` macvlan mode: bridge, private, vepa, passthru (default: bridge); ipvlan: l2, l3, l3s (default: l2)"),
		textOption("mtu", "`BYTES` MTU of containers' interfaces (default: the parent's)"),
		switchOption("internal", "no default route for containers"),
		&cli.StringSliceFlag{Name: "route",
			Usage: "`PREFIX,ROUTER` additional route for containers, such as 10.0.0.0/8,192.168.50.254", KeepSpace: true},
		switchOption("onlink", "gateways and routers outside of the subnets, but on the link"),
		switchOption("source-routing",
			"replies leave by the interface of the request, for containers with several interfaces"),
		switchOption("host-access", "a link for the host on the network, so that host and containers reach each other"),
		listOption("host-address", "`ADDRESS` host's address on that link, one per subnet (default: the first free address)"),
		switchOption("ipv6", "docker's flag: one of the subnets must be IPv6"),
		switchOption("share-parent", "allow a parent that already carries another network"),
		textOption("vlan-proto",
			"`PROTOCOL` outer tag of a parent such as eth0.100.200: 802.1q or 802.1ad (default: 802.1q)"),
		switchOption("gvrp", "announce the VLAN of a parent that Lanyard creates to the switch, with GVRP"),
		switchOption("mvrp", "announce the VLAN of a parent that Lanyard creates to the switch, with MVRP"),
		listOption("allow-namespace",
			"`NAMESPACE` Kubernetes namespace of pods that may use the network; * is any (default: no pods)"),
		switchOption("pod-default-route", "pods get the network's default route instead of the cluster's"),
		&cli.StringSliceFlag{Name: "label", Usage: "`KEY=VALUE` label stored in the definition", KeepSpace: true},
		textOption("verify",
			"`MODE` verification: off, warn, or strict, where a silent gateway stops the start (default: warn)"),
		textOption("deadline",
			"`DURATION` maximum wait for the gateway (default: 1s), a DHCP server, or an address from a router (default: 6s)"),
		textOption("conflict-window",
			"`DURATION` time for another station to claim an address (default: two round trips to the gateway and 1ms)"),
		&cli.StringFlag{Name: "quarantine", Value: "30s",
			Usage: "`DURATION` time until a released address is given to others, unless they name it (default: 30s)"},
		listOption("dns", "`ADDRESS` name server for the containers' resolv.conf, if their engine provides none"),
		listOption("dns-search", "`DOMAIN` search domain for the containers' resolv.conf"),
		listOption("allow-user", "`USER` user that may attach rootless containers, by name or number (default: none)"),
		listOption("allow-group", "`GROUP` group with members that may attach rootless containers (default: none)"),
		textOption("max-per-user", "`NUMBER` maximum number of attachments per such user (default: 8)"),
		textOption("guard",
			"`on|off` drop frames that leave by the parent without a lease (default: on with --brokered direct)"),
		textOption("brokered",
			"`HOW` attachment of rootless containers: guarded, or direct for trusted users (default: guarded)"),
		textOption("driver", "`DRIVER` macvlan, or ipvlan with one MAC for all containers (default: macvlan)", "d"),
		&cli.StringSliceFlag{Name: "option", Aliases: []string{"o", "opt"}, KeepSpace: true,
			Usage: "`KEY=VALUE` docker's option: parent, macvlan_mode, ipvlan_mode, ipvlan_flag, " +
				"com.docker.network.driver.mtu, vlan_proto"},
		textOption("from", "`FILE` JSON file with one definition or an array, - for stdin; excludes all other options"),
	}
}

func textOption(name, usage string, aliases ...string) cli.Flag {
	return &cli.StringFlag{Name: name, Usage: usage, Aliases: aliases}
}

func listOption(name, usage string, aliases ...string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Usage: usage, Aliases: aliases}
}

func switchOption(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage}
}
