package main

import (
	"encoding/json"

	v1 "k8s.io/api/core/v1"
	kubeschedulerconfig "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// document is a cluster and a pod that wants a place in it.
type document struct {
	Name  string     `json:"name"`
	Nodes []*v1.Node `json:"nodes"`
	Pods  []*v1.Pod  `json:"pods"` // bound: spec.nodeName names one of the nodes
	Pod   *v1.Pod    `json:"pod"`
	// Anything else plugins look up, with apiVersion and kind: Namespace, PersistentVolumeClaim,
	// PersistentVolume, StorageClass, CSINode, CSIDriver, Service, ReplicaSet, PodDisruptionBudget…
	Objects   []json.RawMessage `json:"objects"`
	Nominated []nominated       `json:"nominated"`
	// Arguments of plugins, as in a profile of kubescheduler.config.k8s.io/v1.
	PluginConfig []kubeschedulerconfig.PluginConfig `json:"pluginConfig"`
}

type nominated struct {
	Pod  *v1.Pod `json:"pod"`
	Node string  `json:"node"`
}

type verdict struct {
	Name     string                   `json:"name,omitempty"`
	Plugins  map[string]*pluginOutput `json:"plugins"`
	Fit      map[string]*status       `json:"fit"`                // all filters, nominated pods counted
	Total    map[string]int64         `json:"total"`              // weighted sum of scores, feasible nodes only
	Best     []string                 `json:"best"`               // the nodes with the highest total
	Selected string                   `json:"selected"`           // SchedulePod's pick; arbitrary among the best
	FitError string                   `json:"fitError,omitempty"` // FailedScheduling's text before the preemption suffix
	Requests *requestsOutput          `json:"requests,omitempty"`
	// What DefaultPreemption would evict on each candidate node, most important victim first, and the
	// node it would nominate. Only when nothing fits.
	Victims  map[string]*victims `json:"victims,omitempty"`
	Nominate string              `json:"nominate,omitempty"`
	// What DefaultPreemption adds to the text of the refusal.
	PostFilter string `json:"postFilter,omitempty"`
	Error      string `json:"error,omitempty"`
}

type status struct {
	Code    string   `json:"code"`
	Reasons []string `json:"reasons,omitempty"`
	Plugin  string   `json:"plugin,omitempty"`
}

// pluginOutput is what one plugin says on its own, whatever the others say.
type pluginOutput struct {
	PreFilter      *status            `json:"preFilter,omitempty"`
	PreFilterNodes []string           `json:"preFilterNodes,omitempty"` // only if PreFilter narrowed the nodes
	Filter         map[string]*status `json:"filter,omitempty"`
	PreScore       *status            `json:"preScore,omitempty"`
	Raw            map[string]int64   `json:"raw,omitempty"`
	Normalized     map[string]int64   `json:"normalized,omitempty"` // after NormalizeScore, before the weight
	Weight         int32              `json:"weight,omitempty"`
}

type victims struct {
	Pods          []string `json:"pods"`
	PDBViolations int64    `json:"pdbViolations"`
}

// amounts are by resource name, in millicores for cpu and in units for all others; zeros are left out.
type amounts map[string]int64

type requestsOutput struct {
	Pod    amounts               `json:"pod"`    // PreFilter of NodeResourcesFit
	Scored []int64               `json:"scored"` // PreScore of NodeResourcesFit, in the order of its resources
	Pods   map[string]*podUsage  `json:"pods"`   // namespace/name of bound pods
	Nodes  map[string]*nodeUsage `json:"nodes"`
}

// cpuAndMemory is in millicores and bytes.
type cpuAndMemory [2]int64

// podUsage is what NodeInfo counts for a pod that is on it.
type podUsage struct {
	Requested amounts      `json:"requested"`
	Nonzero   cpuAndMemory `json:"nonzero"`
}

type nodeUsage struct {
	podUsage
	Allocatable amounts  `json:"allocatable"`
	PodCount    int      `json:"podCount"`
	PodLimit    int      `json:"podLimit"`
	Ports       []string `json:"ports,omitempty"` // protocol/port/ip
}

func toStatus(s *fwk.Status) *status {
	if s == nil {
		return &status{Code: fwk.Success.String()}
	}
	return &status{Code: s.Code().String(), Reasons: s.Reasons(), Plugin: s.Plugin()}
}
