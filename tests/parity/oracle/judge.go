package main

import (
	"context"
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
)

func judge(doc *document) any {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &verdict{
		Name: doc.Name, Plugins: map[string]*pluginOutput{}, Fit: map[string]*status{}, Total: map[string]int64{},
	}
	if err := fill(ctx, doc, out); err != nil {
		out.Error = err.Error()
	}
	return out
}

func fill(ctx context.Context, doc *document, out *verdict) error {
	c, err := newCluster(ctx, doc)
	if err != nil {
		return err
	}
	state := framework.NewCycleState()
	feasible := c.filter(ctx, state, doc.Pod, out)
	if err := c.score(ctx, state, doc.Pod, feasible, out); err != nil {
		return err
	}
	for _, enabled := range c.profile.Plugins.MultiPoint.Enabled {
		plugin := c.plugins[enabled.Name]
		if plugin == nil {
			continue
		}
		alone, err := c.alone(ctx, plugin, enabled.Weight, doc.Pod, feasible)
		if err != nil {
			return err
		}
		if alone != nil {
			out.Plugins[enabled.Name] = alone
		}
	}
	if out.Requests, err = c.requests(ctx, doc); err != nil {
		return err
	}
	refusal, err := c.schedule(ctx, doc.Pod, out)
	if err != nil || refusal == nil {
		return err
	}
	if !isNever(doc.Pod.Spec.PreemptionPolicy) {
		if err := c.preempt(ctx, state, doc.Pod, out); err != nil {
			return err
		}
	}
	// Last, since the deletions that it begins go on behind its back.
	plugin := c.plugins["DefaultPreemption"].(fwk.PostFilterPlugin)
	_, s := plugin.PostFilter(ctx, refusal.state, doc.Pod, refusal.nodes)
	out.PostFilter = s.Message()
	return nil
}

// filter runs the whole profile's filters and returns the nodes that pass.
func (c *cluster) filter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, out *verdict) []fwk.NodeInfo {
	narrowed, preFilter, _ := c.framework.RunPreFilterPlugins(ctx, state, pod)
	var feasible []fwk.NodeInfo
	for _, node := range c.nodes {
		name := node.Node().Name
		switch {
		case !preFilter.IsSuccess():
			out.Fit[name] = toStatus(preFilter)
		case !narrowed.AllNodes() && !narrowed.NodeNames.Has(name):
			out.Fit[name] = &status{
				Code: fwk.UnschedulableAndUnresolvable.String(), Reasons: []string{"excluded by PreFilterResult"},
			}
		default:
			s := c.framework.RunFilterPluginsWithNominatedPods(ctx, state, pod, node)
			out.Fit[name] = toStatus(s)
			if s.IsSuccess() {
				feasible = append(feasible, node)
			}
		}
	}
	return feasible
}

func (c *cluster) score(
	ctx context.Context, state fwk.CycleState, pod *v1.Pod, feasible []fwk.NodeInfo, out *verdict,
) error {
	if len(feasible) == 0 {
		return nil
	}
	if s := c.framework.RunPreScorePlugins(ctx, state, pod, feasible); !s.IsSuccess() {
		return s.AsError()
	}
	scores, s := c.framework.RunScorePlugins(ctx, state, pod, feasible)
	if !s.IsSuccess() {
		return s.AsError()
	}
	highest := int64(-1)
	for _, node := range scores {
		out.Total[node.Name] = node.TotalScore
		if node.TotalScore > highest {
			highest, out.Best = node.TotalScore, nil
		}
		if node.TotalScore == highest {
			out.Best = append(out.Best, node.Name)
		}
	}
	slices.Sort(out.Best)
	return nil
}

// alone runs one plugin by itself: its filter on all nodes, its score on the feasible ones.
func (c *cluster) alone(
	ctx context.Context, plugin fwk.Plugin, weight int32, pod *v1.Pod, feasible []fwk.NodeInfo,
) (*pluginOutput, error) {
	out := &pluginOutput{}
	state := framework.NewCycleState()
	if p, ok := plugin.(fwk.PreFilterPlugin); ok {
		narrowed, s := p.PreFilter(ctx, state, pod, c.nodes)
		out.PreFilter = toStatus(s)
		if s.IsSuccess() && !narrowed.AllNodes() {
			out.PreFilterNodes = slices.Sorted(slices.Values(narrowed.NodeNames.UnsortedList()))
		}
	}
	if p, ok := plugin.(fwk.FilterPlugin); ok && (out.PreFilter == nil || isSuccess(out.PreFilter)) {
		out.Filter = map[string]*status{}
		for _, node := range c.nodes {
			out.Filter[node.Node().Name] = toStatus(p.Filter(ctx, state, pod, node))
		}
	}
	if p, ok := plugin.(fwk.ScorePlugin); ok && len(feasible) > 0 {
		out.Weight = max(weight, 1) // unset is 1, as in the framework
		if err := scoreAlone(ctx, p, state, pod, feasible, out); err != nil {
			return nil, err
		}
	}
	if out.PreFilter == nil && out.Filter == nil && out.Weight == 0 {
		return nil, nil
	}
	return out, nil
}

func scoreAlone(
	ctx context.Context, plugin fwk.ScorePlugin, state fwk.CycleState, pod *v1.Pod, feasible []fwk.NodeInfo,
	out *pluginOutput,
) error {
	if p, ok := plugin.(fwk.PreScorePlugin); ok {
		s := p.PreScore(ctx, state, pod, feasible)
		out.PreScore = toStatus(s)
		if !s.IsSuccess() {
			return nil
		}
	}
	out.Raw, out.Normalized = map[string]int64{}, map[string]int64{}
	var scores fwk.NodeScoreList
	for _, node := range feasible {
		score, s := plugin.Score(ctx, state, pod, node)
		if !s.IsSuccess() {
			return s.AsError()
		}
		out.Raw[node.Node().Name] = score
		scores = append(scores, fwk.NodeScore{Name: node.Node().Name, Score: score})
	}
	if extensions := plugin.ScoreExtensions(); extensions != nil {
		if s := extensions.NormalizeScore(ctx, state, pod, scores); !s.IsSuccess() {
			return s.AsError()
		}
	}
	for _, score := range scores {
		out.Normalized[score.Name] = score.Score
	}
	return nil
}

// refusal is what PostFilter plugins are given of a pod that fits nowhere.
type refusal struct {
	state fwk.CycleState
	nodes fwk.NodeToStatusReader
}

// schedule asks the real SchedulePod for its pick, or for the text of its refusal, which it returns unless
// there are no nodes.
func (c *cluster) schedule(ctx context.Context, pod *v1.Pod, out *verdict) (*refusal, error) {
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		return nil, err
	}
	state := framework.NewCycleState()
	queued := &framework.QueuedPodInfo{PodInfo: info}
	result, err := c.scheduler.SchedulePod(ctx, c.framework, state, queued)
	out.Selected = result.SuggestedHost
	if err == nil {
		return nil, nil
	}
	out.FitError = err.Error()
	var fitError *framework.FitError
	if !errors.As(err, &fitError) {
		return nil, nil
	}
	return &refusal{state, fitError.Diagnosis.NodeToStatus}, nil
}

// preempt runs DefaultPreemption's dry run over every node where evicting pods may help.
func (c *cluster) preempt(ctx context.Context, state fwk.CycleState, pod *v1.Pod, out *verdict) error {
	var candidates []fwk.NodeInfo
	for _, node := range c.nodes {
		if out.Fit[node.Node().Name].Code == fwk.Unschedulable.String() {
			candidates = append(candidates, node)
		}
	}
	if len(candidates) == 0 {
		return nil
	}
	budgets, err := c.informers.Policy().V1().PodDisruptionBudgets().Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	evaluator := c.plugins["DefaultPreemption"].(*defaultpreemption.DefaultPreemption).Evaluator
	found, _, err := evaluator.DryRunPreemption(ctx, state, pod, candidates, budgets, 0, int32(len(candidates)))
	if err != nil {
		return err
	}
	out.Victims = map[string]*victims{}
	for _, candidate := range found {
		v := &victims{PDBViolations: candidate.Victims().NumPDBViolations}
		for _, victim := range candidate.Victims().Pods {
			v.Pods = append(v.Pods, victim.Namespace+"/"+victim.Name)
		}
		out.Victims[candidate.Name()] = v
	}
	if best := evaluator.SelectCandidate(ctx, found); best != nil {
		out.Nominate = best.Name()
	}
	return nil
}

func isSuccess(s *status) bool { return s.Code == fwk.Success.String() }

func isNever(policy *v1.PreemptionPolicy) bool { return policy != nil && *policy == v1.PreemptNever }
