package main

import "github.com/urfave/cli/v2"

func createFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "parent", Usage: "`LINK` host link that carries the network: eth0, eth0.50, any name (default: a dummy, which leads nowhere)"},
		&cli.StringSliceFlag{Name: "subnet", Usage: "`PREFIX` the LAN's block of addresses, such as 192.168.50.0/24; one or more"},
		&cli.StringSliceFlag{Name: "gateway", Usage: "`ADDRESS` a subnet's router, or none (default: the subnet's first usable address)"},
		&cli.StringSliceFlag{Name: "ip-range", Usage: "`PREFIX` part of a subnet that addresses are given out from (default: all of it)"},
		&cli.StringSliceFlag{Name: "aux-address", Usage: "`NAME=ADDRESS` somebody else's address, which nobody is given"},
		&cli.StringFlag{Name: "allocate", Usage: "`HOW` sequential, or stable: a container of the same name gets the same address (default: sequential)"},
		&cli.StringFlag{Name: "ipam", Aliases: []string{"ipam-driver"}, Usage: "`WHO` none: give links and no addresses, to workloads that ask for their own"},
		&cli.StringFlag{Name: "mode", Usage: "`MODE` bridge, private, vepa or passthru (default: bridge); of ipvlan l2, l3 or l3s (default: l2)"},
		&cli.StringFlag{Name: "mtu", Usage: "`BYTES` of containers' interfaces (default: the parent's)"},
		&cli.BoolFlag{Name: "internal", Usage: "give containers no default route"},
		&cli.StringSliceFlag{Name: "route", Usage: "`PREFIX,ROUTER` give containers this route, too, such as 10.0.0.0/8,192.168.50.254", KeepSpace: true},
		&cli.BoolFlag{Name: "onlink", Usage: "gateways and routers are on the link although no subnet holds them"},
		&cli.BoolFlag{Name: "source-routing", Usage: "replies leave by the interface that the question came in by, however many a container has"},
		&cli.BoolFlag{Name: "host-access", Usage: "let the host reach the containers, and they it, by a link of its own"},
		&cli.StringSliceFlag{Name: "host-address", Usage: "`ADDRESS` of the host on that link, one in each subnet (default: the first that is free)"},
		&cli.BoolFlag{Name: "ipv6", Usage: "as docker has it: one of the subnets is IPv6"},
		&cli.BoolFlag{Name: "share-parent", Usage: "stand on a parent that carries another network already"},
		&cli.StringFlag{Name: "vlan-proto", Usage: "`PROTOCOL` 802.1q or 802.1ad: of the outermost tag of a parent such as eth0.100.200 (default: 802.1q)"},
		&cli.StringSliceFlag{Name: "allow-namespace", Usage: "`NAMESPACE` of Kubernetes whose pods may ask for the network; * is any (default: no pod may)"},
		&cli.BoolFlag{Name: "pod-default-route", Usage: "take the default route of a pod, which has one of its cluster's"},
		&cli.StringSliceFlag{Name: "label", Usage: "`KEY=VALUE` kept with the network", KeepSpace: true},
		&cli.StringFlag{Name: "verify", Usage: "`MODE` off, warn or strict: a silent gateway stops a start only if strict (default: warn)"},
		&cli.StringFlag{Name: "deadline", Usage: "`TIME` how long a silent gateway is waited for (default: 1s)"},
		&cli.StringFlag{Name: "conflict-window", Usage: "`TIME` how long others have to object to an address (default: two round trips)"},
		&cli.StringFlag{Name: "quarantine", Value: "30s", Usage: "`TIME` how long a released address is kept from others (default: 30s)"},
		&cli.StringSliceFlag{Name: "dns", Usage: "`ADDRESS` of a name server that containers are told of, where their engine tells them of none"},
		&cli.StringSliceFlag{Name: "dns-search", Usage: "`DOMAIN` that containers look for short names in"},
		&cli.StringSliceFlag{Name: "allow-user", Usage: "`USER` whose rootless containers may attach, by name or number (default: nobody's)"},
		&cli.StringSliceFlag{Name: "allow-group", Usage: "`GROUP` whose members' rootless containers may attach"},
		&cli.StringFlag{Name: "max-per-user", Usage: "`NUMBER` of attachments that such a user may have (default: 8)"},
		&cli.StringFlag{Name: "guard", Usage: "`on|off` let leave by the parent what carries a lease, and nothing else (default: on with --brokered direct)"},
		&cli.StringFlag{Name: "brokered", Usage: "`HOW` rootless containers attach: guarded, or direct for users trusted with the LAN (default: guarded)"},
		&cli.StringFlag{Name: "driver", Aliases: []string{"d"}, Usage: "`DRIVER` macvlan, or ipvlan: one MAC for all (default: macvlan)"},
		&cli.StringSliceFlag{Name: "option", Aliases: []string{"o", "opt"}, KeepSpace: true,
			Usage: "`KEY=VALUE` docker's spelling: parent, macvlan_mode, ipvlan_mode, ipvlan_flag, com.docker.network.driver.mtu; vlan_proto as well"},
		&cli.StringFlag{Name: "from", Usage: "`FILE` take the definition, or an array of them, from a JSON file, - for stdin, and no other option"},
	}
}
