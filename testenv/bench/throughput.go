package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Names of the series of a TCP stream, in GB/s.
const (
	withProgram    = "trunk with the program"
	withoutProgram = "trunk without"
	subjStream     = "TCP stream, GB/s"
)

// throughput makes iperf3 send a TCP stream from containers to the gateway, in short turns: over a
// trunk with the program, over one without, and through a guard.
func throughput(w *world, o options, r *results) error {
	turns := 24
	if o.quick {
		turns = 6
	}
	if err := w.startService(); err != nil {
		return err
	}
	all := []struct {
		contender
		lan
	}{
		{w.contenders()[0], w.lans[ours]},
		{contender{name: withoutProgram, attach: w.floor(w.lans[floor])}, w.lans[floor]},
		{w.guarded(), w.lans[guarded]},
	}
	all[0].name = withProgram
	took := make([][]float64, len(all))
	made := make([]*container, len(all))
	defer func() { endAll(made) }()
	for i, c := range all {
		var err error
		if made[i], err = w.newFor(c.contender); err != nil {
			return err
		}
		if _, err = c.attach(made[i]).run(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	server, err := w.serve()
	if err != nil {
		return err
	}
	defer func() { _ = server.stop() }() // iperf3 reports its end by a signal as an error
	for n := range turns + 1 {
		for k := range all {
			i := (k + n) % len(all)
			rate, err := send(made[i], all[i].gateway.String(), stream)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			if n > 0 { // the first turn warms up
				took[i] = append(took[i], rate)
			}
		}
	}
	for i, c := range all {
		r.figure(subjStream, c.name, median(took[i])/1e9, "GB/s")
	}
	r.atLeast(subjStream+": with the program / without", took[0], took[1], 0.97)
	r.atLeast(subjStream+": guarded / direct", took[2], took[0], 0.9)
	for i, c := range all {
		if err := w.clear(c.contender, made[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// stream is the number of bytes that one turn sends, and streamPort the port of iperf3.
const stream, streamPort = "512M", "7777"

// in returns a command that runs a program in the container's network namespace.
func (c *container) in(program string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + c.path(), program}, args...)...)
}

// serve starts iperf3 in the gateway's namespace.
func (w *world) serve() (*daemon, error) {
	return startDaemon(w.gateway.in("iperf3", "--server", "--port", streamPort), 5*time.Second, func() error {
		_, err := send(w.gateway, "127.0.0.1", "1K")
		return err
	})
}

// send sends the given amount of bytes, and returns how many were received per second.
func send(from *container, to, amount string) (rate float64, err error) {
	out, err := from.in("iperf3", "--client", to, "--port", streamPort, "--bytes", amount, "--json").Output()
	var result struct {
		Error string
		End   struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if jerr := json.Unmarshal(out, &result); jerr != nil {
		return 0, errors.Join(err, jerr)
	}
	if err != nil || result.Error != "" {
		return 0, fmt.Errorf("iperf3 to %s: %w: %s", to, err, result.Error)
	}
	return result.End.Received.BitsPerSecond / 8, nil
}
