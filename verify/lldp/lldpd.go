package lldp

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// lldpdTimeout limits the wait for lldpd.
const lldpdTimeout = 3 * time.Second

// FromDaemon returns what lldpd has heard on a link. running is false if lldpd does not run, or does
// not listen on the link. n is nil if it has heard nothing.
func FromDaemon(ctx context.Context, link string) (n *Neighbour, running bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lldpdTimeout)
	defer cancel()
	interfaces, err := exec.CommandContext(ctx, "lldpcli", "-f", "json0", "show", "interfaces", "ports", link).Output()
	if err != nil {
		return nil, false, nil // not installed, or not running
	}
	var listens report
	if json.Unmarshal(interfaces, &listens) != nil || len(listens.links()) == 0 {
		return nil, false, nil
	}
	text, err := exec.CommandContext(ctx, "lldpcli", "-f", "json0", "show", "neighbors", "details", "ports", link).Output()
	if err != nil {
		return nil, true, fmt.Errorf("lldpcli: %w", err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		return nil, true, fmt.Errorf("lldpcli: %w", err)
	}
	for _, i := range got.links() {
		if i.Name == link {
			found := i.neighbour()
			return &found, true, nil
		}
	}
	return nil, true, nil
}

// report is the output of lldpcli in the format json0, in which every element is a list.
type report struct {
	LLDP []struct {
		Interface []heard `json:"interface"`
	} `json:"lldp"`
}

func (r report) links() (list []heard) {
	for _, l := range r.LLDP {
		list = append(list, l.Interface...)
	}
	return list
}

// heard is what lldpd has heard on one link.
type heard struct {
	Name    string `json:"name"`
	Chassis []struct {
		ID   []text `json:"id"`
		Name []text `json:"name"`
	} `json:"chassis"`
	Port []struct {
		ID []text `json:"id"`
	} `json:"port"`
	VLAN []struct {
		ID   string `json:"vlan-id"`
		PVID bool   `json:"pvid"`
		Name string `json:"value"`
	} `json:"vlan"`
}

type text struct {
	Value string `json:"value"`
}

func (h heard) neighbour() (n Neighbour) {
	chassis := ""
	for _, c := range h.Chassis {
		for _, id := range c.ID {
			chassis = printable([]byte(id.Value))
		}
		for _, name := range c.Name {
			n.Switch = printable([]byte(name.Value))
		}
	}
	for _, p := range h.Port {
		for _, id := range p.ID {
			n.Port = printable([]byte(id.Value))
		}
	}
	for _, v := range h.VLAN {
		vid, err := strconv.ParseUint(v.ID, 10, 16)
		if err != nil {
			continue
		}
		if v.PVID {
			n.PVID = uint16(vid)
		}
		if v.Name != "" || !v.PVID { // lldpd lists a PVID also if no VLAN is named so
			n.VLANs = append(n.VLANs, uint16(vid))
		}
	}
	return n.finish(chassis)
}
