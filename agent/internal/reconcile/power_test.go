package reconcile

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestPowerCut(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		sleep(time.Minute)
		m.engine.PowerCut()
		if row := m.row("rep_1"); row.State != spec.ContainerFailed || !strings.Contains(row.Error, "bridge") {
			t.Fatalf("without bridge: %+v", row)
		}
		m.engine.SetBridge(true)
		m.r.Poke()
		m.wantState("rep_1", spec.ContainerFailed) // its wait goes on: nobody said that there is a bridge
		m.r.NetworkReady()                         // as whoever made it does
		m.wantState("rep_1", spec.ContainerRunning)
	})
}

func TestAContainerWhoseFilesWentWithThePowerIsMadeAnew(t *testing.T) {
	onMachine(t, nil, func(m *machine) {
		sleep(time.Minute)
		before := m.wantState("rep_1", spec.ContainerRunning)
		damaged := map[string]bool{}
		containers, err := m.engine.List(m.Context())
		must(t, err)
		for _, c := range containers {
			damaged[c.Name] = true
		}
		m.engine.OnCall(func(method, object string) error {
			if method == "Remove" {
				delete(damaged, object)
			}
			if method == "Start" && damaged[object] {
				return faults.New(faults.Engine, "podman: start container: no such file or directory")
			}
			return nil
		})
		m.engine.PowerCut()
		m.engine.SetBridge(true)
		m.r.NetworkReady()
		sleep(time.Minute)
		if after := m.wantState("rep_1", spec.ContainerRunning); after.EngineID == before.EngineID {
			t.Errorf("it is still container %s", after.EngineID)
		}
	})
}

// Power went after an earlier run of the agent had made the container, and before it was started.
func TestAContainerThatLostItsFilesBeforeItsFirstStartIsMadeAnew(t *testing.T) {
	damaged := true
	onMachine(t, func(m *machine) {
		must(t, m.engineNetwork(m.Context(), subnet))
		_, err := m.engine.Create(m.Context(), runtime.ContainerRequest{
			Name: "shop-web-1", Cluster: cluster, Project: "shop", Service: "svc_web", Replica: "rep_1", Revision: "rev_1",
			Spec: m.store.State().Revisions["rev_1"].Spec.Container, Address: netip.MustParseAddr("10.210.7.2"),
		})
		must(t, err)
		m.engine.OnCall(func(method, _ string) error {
			damaged = damaged && method != "Remove"
			if method == "Start" && damaged {
				return faults.New(faults.Engine, "podman: start container: no such file or directory")
			}
			return nil
		})
	}, func(m *machine) {
		m.wantState("rep_1", spec.ContainerPending) // to mend it is no failure
		sleep(2 * time.Second)
		m.wantState("rep_1", spec.ContainerRunning)
	})
}

func TestAContainerThatCannotBeStartedIsMadeOnce(t *testing.T) {
	calls := map[string]int{}
	onMachine(t, func(m *machine) {
		m.engine.OnCall(func(method, _ string) error {
			calls[method]++
			if method == "Start" {
				return faults.New(faults.Engine, "podman: start container: executable file not found")
			}
			return nil
		})
	}, func(m *machine) {
		sleep(time.Hour)
		m.wantState("rep_1", spec.ContainerFailed)
		if calls["Create"] != 1 || calls["Remove"] != 0 || calls["Start"] < 60 {
			t.Errorf("calls: %v", calls)
		}
	})
}

func TestANameThatAHalfMadeContainerHasIsFreed(t *testing.T) {
	var taken string
	onMachine(t, func(m *machine) {
		m.engine.OnCall(func(method, object string) error {
			switch {
			case method == "Create" && taken == "":
				taken = object
			case method == "Remove" && object == taken:
				taken = "nobody's"
			}
			if method == "Create" && object == taken {
				return runtime.ErrNameTaken
			}
			return nil
		})
	}, func(m *machine) {
		sleep(time.Minute)
		m.wantState("rep_1", spec.ContainerRunning)
	})
}
