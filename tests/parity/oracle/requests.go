package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	fwk "k8s.io/kube-scheduler/framework"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
)

// requestCounter computes the requests of single pods; it has no cluster.
type requestCounter struct{ fit *noderesources.Fit }

// podRequests is the answer in --requests mode.
type podRequests struct {
	Pod    amounts   `json:"pod"`    // before the pod has a node
	Scored []int64   `json:"scored"` // what LeastAllocated counts for it: millicores, bytes
	OnNode *podUsage `json:"onNode"` // what it takes of its node
	Error  string    `json:"error,omitempty"`
}

func newRequestCounter() (*requestCounter, error) {
	defaults, err := latest.Default()
	if err != nil {
		return nil, err
	}
	var args runtime.Object
	for _, pluginConfig := range defaults.Profiles[0].PluginConfig {
		if pluginConfig.Name == noderesources.Name {
			args = pluginConfig.Args
		}
	}
	gates := feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate)
	gates.EnableDRAExtendedResource = false // needs a cluster, has no say in requests
	plugin, err := noderesources.NewFit(context.Background(), args, nil, gates)
	if err != nil {
		return nil, err
	}
	return &requestCounter{fit: plugin.(*noderesources.Fit)}, nil
}

func (c *requestCounter) count(pod *v1.Pod) *podRequests {
	corev1defaults.SetObjectDefaults_Pod(pod)
	requests, scored := countIncoming(context.Background(), c.fit, pod, nil)
	return &podRequests{Pod: requests, Scored: scored, OnNode: usage(framework.NewNodeInfo(pod))}
}

func (c *cluster) requests(ctx context.Context, doc *document) (*requestsOutput, error) {
	fit, ok := c.plugins[noderesources.Name].(*noderesources.Fit)
	if !ok {
		return nil, fmt.Errorf("%s is not in the profile", noderesources.Name)
	}
	out := &requestsOutput{Pods: map[string]*podUsage{}, Nodes: map[string]*nodeUsage{}}
	out.Pod, out.Scored = countIncoming(ctx, fit, doc.Pod, c.nodes)
	for _, node := range c.nodes {
		for _, pod := range node.GetPods() {
			p := pod.GetPod()
			out.Pods[p.Namespace+"/"+p.Name] = usage(framework.NewNodeInfo(p))
		}
		out.Nodes[node.Node().Name] = &nodeUsage{
			podUsage:    *usage(node),
			Allocatable: toAmounts(node.GetAllocatable()),
			PodCount:    len(node.GetPods()),
			PodLimit:    node.GetAllocatable().GetAllowedPodNumber(),
			Ports:       ports(node),
		}
	}
	return out, nil
}

// countIncoming reads what the plugin has worked out from the state it keeps between its stages.
func countIncoming(
	ctx context.Context, fit *noderesources.Fit, pod *v1.Pod, nodes []fwk.NodeInfo,
) (amounts, []int64) {
	state := framework.NewCycleState()
	fit.PreFilter(ctx, state, pod, nodes)
	fit.PreScore(ctx, state, pod, nodes)
	needed := private(state, "PreFilter"+noderesources.Name).FieldByName("Resource").Interface().(framework.Resource)
	requests := private(state, "PreScore"+noderesources.Name).FieldByName("podRequests")
	var scored []int64
	for i := range requests.Len() {
		scored = append(scored, requests.Index(i).Int())
	}
	return toAmounts(&needed), scored
}

func private(state fwk.CycleState, key fwk.StateKey) reflect.Value {
	data, err := state.Read(key)
	if err != nil {
		panic(err) // the plugin no longer keeps it there: go.mod has moved on without this file
	}
	return reflect.ValueOf(data).Elem()
}

func usage(node fwk.NodeInfo) *podUsage {
	nonzero := node.GetNonZeroRequested()
	return &podUsage{
		Requested: toAmounts(node.GetRequested()),
		Nonzero:   cpuAndMemory{nonzero.GetMilliCPU(), nonzero.GetMemory()},
	}
}

func toAmounts(r fwk.Resource) amounts {
	out := amounts{
		string(v1.ResourceCPU):              r.GetMilliCPU(),
		string(v1.ResourceMemory):           r.GetMemory(),
		string(v1.ResourceEphemeralStorage): r.GetEphemeralStorage(),
	}
	for name, amount := range r.GetScalarResources() {
		out[string(name)] = amount
	}
	for name, amount := range out {
		if amount == 0 {
			delete(out, name)
		}
	}
	return out
}

func ports(node fwk.NodeInfo) []string {
	var out []string
	for ip, used := range node.GetUsedPorts() {
		for port := range used {
			out = append(out, fmt.Sprintf("%s/%d/%s", port.Protocol, port.Port, ip))
		}
	}
	slices.Sort(out)
	return out
}
