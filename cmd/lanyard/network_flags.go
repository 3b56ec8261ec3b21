package main

import "github.com/urfave/cli/v2"

// createFlags returns the flags of "network create".
func createFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "parent", Usage: "`LINK` host link that carries the network, such as eth0 or eth0.50 (default: a dummy link, isolated)"},
		&cli.StringSliceFlag{Name: "subnet", Usage: "`PREFIX` subnet of the LAN, such as 192.168.50.0/24; one or more"},
		&cli.StringSliceFlag{Name: "gateway", Usage: "`ADDRESS` gateway of a subnet, or none (default: the subnet's first usable address)"},
		&cli.StringSliceFlag{Name: "ip-range", Usage: "`PREFIX` part of a subnet for containers' addresses (default: the whole subnet)"},
		&cli.StringSliceFlag{Name: "aux-address", Usage: "`NAME=ADDRESS` address of another machine, not for containers"},
		&cli.StringFlag{Name: "allocate", Usage: "`HOW` allocation of addresses: sequential, or stable, by the container's name (default: sequential)"},
		&cli.StringFlag{Name: "mac-from",
			Usage: "`SOURCE` source of MACs: host, different on every host, or address, 02:42 and the IPv4 address (default: host)"},
		&cli.StringFlag{Name: "ipam", Aliases: []string{"ipam-driver"}, Usage: "`MODE` none: no address management, for workloads that run DHCP or SLAAC (default: Lanyard's own)"},
		&cli.StringFlag{Name: "mode", Usage: "`MODE` macvlan mode: bridge, private, vepa, passthru (default: bridge); ipvlan mode: l2, l3, l3s (default: l2)"},
		&cli.StringFlag{Name: "mtu", Usage: "`BYTES` MTU of containers' interfaces (default: the parent's)"},
		&cli.BoolFlag{Name: "internal", Usage: "no default route for containers"},
		&cli.StringSliceFlag{Name: "route", Usage: "`PREFIX,ROUTER` additional route for containers, such as 10.0.0.0/8,192.168.50.254", KeepSpace: true},
		&cli.BoolFlag{Name: "onlink", Usage: "gateways and routers outside of the subnets, but on the link"},
		&cli.BoolFlag{Name: "source-routing", Usage: "replies leave by the interface of the request, for containers with several interfaces"},
		&cli.BoolFlag{Name: "host-access", Usage: "a link for the host on the network, so that host and containers reach each other"},
		&cli.StringSliceFlag{Name: "host-address", Usage: "`ADDRESS` host's address on that link, one per subnet (default: the first free address)"},
		&cli.BoolFlag{Name: "ipv6", Usage: "docker's flag: one of the subnets must be IPv6"},
		&cli.BoolFlag{Name: "share-parent", Usage: "allow a parent that already carries another network"},
		&cli.StringFlag{Name: "vlan-proto", Usage: "`PROTOCOL` outer tag of a parent such as eth0.100.200: 802.1q or 802.1ad (default: 802.1q)"},
		&cli.StringSliceFlag{Name: "allow-namespace", Usage: "`NAMESPACE` Kubernetes namespace whose pods may use the network; * is any (default: no pods)"},
		&cli.BoolFlag{Name: "pod-default-route", Usage: "pods get the network's default route instead of the cluster's"},
		&cli.StringSliceFlag{Name: "label", Usage: "`KEY=VALUE` label stored in the definition", KeepSpace: true},
		&cli.StringFlag{Name: "verify", Usage: "`MODE` verification: off, warn, or strict, where a silent gateway stops the start (default: warn)"},
		&cli.StringFlag{Name: "deadline", Usage: "`DURATION` maximum wait for the gateway's answer (default: 1s)"},
		&cli.StringFlag{Name: "conflict-window", Usage: "`DURATION` wait for other users of an address (default: two round trips to the gateway and 1ms)"},
		&cli.StringFlag{Name: "quarantine", Value: "30s", Usage: "`DURATION` time until a released address is given to another container (default: 30s)"},
		&cli.StringSliceFlag{Name: "dns", Usage: "`ADDRESS` name server for the containers' resolv.conf, if their engine provides none"},
		&cli.StringSliceFlag{Name: "dns-search", Usage: "`DOMAIN` search domain for the containers' resolv.conf"},
		&cli.StringSliceFlag{Name: "allow-user", Usage: "`USER` user whose rootless containers may attach, by name or number (default: none)"},
		&cli.StringSliceFlag{Name: "allow-group", Usage: "`GROUP` group whose members' rootless containers may attach (default: none)"},
		&cli.StringFlag{Name: "max-per-user", Usage: "`NUMBER` maximum number of attachments per such user (default: 8)"},
		&cli.StringFlag{Name: "guard", Usage: "`on|off` drop frames that leave by the parent without a lease (default: on with --brokered direct)"},
		&cli.StringFlag{Name: "brokered", Usage: "`HOW` attachment of rootless containers: guarded, or direct for trusted users (default: guarded)"},
		&cli.StringFlag{Name: "driver", Aliases: []string{"d"}, Usage: "`DRIVER` macvlan, or ipvlan with one MAC for all containers (default: macvlan)"},
		&cli.StringSliceFlag{Name: "option", Aliases: []string{"o", "opt"}, KeepSpace: true,
			Usage: "`KEY=VALUE` docker's option: parent, macvlan_mode, ipvlan_mode, ipvlan_flag, com.docker.network.driver.mtu, vlan_proto"},
		&cli.StringFlag{Name: "from", Usage: "`FILE` JSON file with one definition or an array, - for stdin; excludes all other options"},
	}
}
