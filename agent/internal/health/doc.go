// Package health tells whether replicas may take traffic. It owns the probes
// of this machine's containers and the verdicts that follow. It refuses to act
// on a verdict: it starts, stops and writes nothing, it only tells.
//
// Judge and History are the pure half; Prober runs the probes.
//
//	container starts                first success          three failures
//	│← start period →│                    │                   in a row
//	│ x x x x x x x x│ x  x  x   x    x   ✓          ✓         x     x     x       ✓
//	└─ starting ──────────────────────────┴─ healthy ──────────────────────┴ unhealthy ┴ healthy
//	  every 0.5 s      ever slower           every interval
//
// Until the first success probes are quick, so that a deploy does not wait for
// an interval that is meant for steady state. They do not make the replica fail
// sooner for that: without a success it becomes unhealthy when the start period
// and as many intervals as it has retries are over, as Compose means it.
package health
