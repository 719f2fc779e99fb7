package rollout

import (
	"testing"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// TestOnlyWhatWasAgreedToIsDone: between the plan and the yes another person
// adds a service, scales one, deploys another. Nobody was shown what would
// happen now, so nothing does.
func TestOnlyWhatWasAgreedToIsDone(t *testing.T) {
	cache := web("cache:1", 1)
	cache.Name = "cache"
	cacheID := spec.ServiceID("shop", "cache")
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		a, b := w.m("a").driver, w.m("b")
		must(t, b.deploy(web("web:1", 2)))

		prune := DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{web("web:2", 2)}, Prune: true}
		shown, err := a.PlanDeploy(w.ctx, prune)
		must(t, err)
		must(t, b.deploy(cache))
		prune.Agreed = shown.Digest()
		wantCode(t, a.Deploy(w.ctx, prune, nil), faults.Conflict)
		wantImages(t, w.settled("a"), cacheID, "cache:1")
		wantImages(t, w.settled("a"), webID, "web:1", "web:1")

		removal, err := a.PlanRemoval([]string{webID, cacheID}, false)
		must(t, err)
		scaling, err := a.PlanScale(w.ctx, webID, 1)
		must(t, err)
		must(t, b.driver.Scale(w.ctx, webID, 3, "", nil))
		wantCode(t, a.Remove(w.ctx, []string{webID, cacheID}, false, removal.Digest(), nil), faults.Conflict)
		wantCode(t, a.Scale(w.ctx, webID, 1, planOf(scaling).Digest(), nil), faults.Conflict)
		wantImages(t, w.settled("a"), cacheID, "cache:1")
		wantImages(t, w.settled("a"), webID, "web:1", "web:1", "web:1")

		must(t, b.deploy(web("web:2", 3)))
		back, err := a.PlanRollback(w.ctx, webID, "")
		must(t, err)
		must(t, b.deploy(web("web:3", 3)))
		wantCode(t, a.Rollback(w.ctx, webID, "", planOf(back).Digest(), nil), faults.Conflict)
		wantImages(t, w.settled("a"), webID, "web:3", "web:3", "web:3")
	})
}

// TestWhatWasAgreedToIsDone: the digest of a plan fits the plan that is made
// anew, also later, on another machine, and with rows that are made meanwhile
// for others.
func TestWhatWasAgreedToIsDone(t *testing.T) {
	other := web("other:1", 1)
	other.Name = "other"
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		a, b := w.m("a").driver, w.m("b").driver
		request := DeployRequest{Project: "shop", Specs: []spec.ServiceSpec{web("web:1", 2), db("db:1")}, Prune: true}
		agree := func() {
			t.Helper()
			shown, err := a.PlanDeploy(w.ctx, request)
			must(t, err)
			request.Agreed = shown.Digest()
			must(t, wait(w.ctx, 2*membersStable))
			must(t, b.Deploy(w.ctx, request, nil))
			w.settled("a")
		}
		agree()
		request.Specs = []spec.ServiceSpec{web("web:2", 3)}
		agree()
		request.Recreate = true
		agree()
		scaling, err := a.PlanScale(w.ctx, webID, 2)
		must(t, err)
		must(t, b.Deploy(w.ctx, DeployRequest{Project: "else", Specs: []spec.ServiceSpec{other}}, nil))
		must(t, a.Scale(w.ctx, webID, 2, planOf(scaling).Digest(), nil))
		back, err := a.PlanRollback(w.ctx, webID, "")
		must(t, err)
		must(t, a.Rollback(w.ctx, webID, "", planOf(back).Digest(), nil))
		removal, err := a.PlanRemoval([]string{webID}, true)
		must(t, err)
		must(t, a.Remove(w.ctx, []string{webID}, true, removal.Digest(), nil))
		wantImages(t, w.settled("a"), webID)
	})
}
