package metrics

import (
	"os/exec"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// TestLabels checks that an id that is no UTF-8, which runtimes allow, does not panic.
func TestLabels(t *testing.T) {
	out := make(chan prometheus.Metric, 1)
	r := reading{out: out}
	r.gauge(watched, 1, "web", "c\xff1", "eth0")
	var m dto.Metric
	if err := (<-out).Write(&m); err != nil {
		t.Fatal(err)
	}
	if got := m.GetLabel()[0].GetValue(); got != "c?1" {
		t.Errorf("container is %q", got)
	}
}

// TestRules has Prometheus check the alert rules, and what they do with series.
func TestRules(t *testing.T) {
	cmd := exec.Command("promtool", "test", "rules", "lanyard.rules.test.yml")
	cmd.Dir = "../../../packaging/prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
