"""The same checkpointer with LangGraph's opt-in delta channel: the new message is stored, the list now and then.

The channel is made for graphs. What is stored here is what the loop of a graph
with one node stores at each step, which was compared with a real graph's rows;
the time that a graph takes beside that is not measured.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.channels.ephemeral_value import EphemeralValue
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.pregel._checkpoint import achannels_from_checkpoint, create_checkpoint, delta_channels_to_snapshot

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Description, key, package_versions
from benchmarks.stores.langgraph_saver import CHANNEL, LangGraphStore, thread

NODE = "agent"
TRIGGER = f"branch:to:{NODE}"
"""The channel by which the node's own edge calls it again."""


def concatenate(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    """Reduce as the channel wants it: the state and a batch of writes.

    Not the reducer for chat messages: that would turn dicts into message objects.
    """
    return state + [message for write in writes for message in write]


@dataclass
class Thread:
    """What the graph's loop keeps in memory between two steps."""

    config: RunnableConfig
    channels: dict[str, Any] = field(default_factory=lambda: {CHANNEL: _new_channel(), TRIGGER: EphemeralValue(Any)})
    checkpoint: Checkpoint = field(default_factory=empty_checkpoint)
    version: Any = None
    """Of the channels that the last step wrote."""
    updates: int = 0
    """Since the last stored list."""


class LangGraphDeltaStore(LangGraphStore):
    """Each step stores its writes, then a checkpoint, with LangGraph's own functions."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, Thread] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="LangGraph, delta channel (opt-in)",
            version=package_versions("langgraph", "langgraph-checkpoint-postgres", "psycopg"),
            setup=f"the same pool of {CONNECTIONS}; DeltaChannel with its default snapshot_frequency; per message"
            " aput_writes and aput of what a graph with one node stores",
            keeps="every checkpoint; each message as a write, the whole list every 100 updates",
        )

    async def save(self, conversation: Conversation, index: int) -> None:
        """Store the step's writes under the checkpoint before, then the step's checkpoint.

        Each message is wrapped: a bare dict with a role would come back as an object of LangChain's.
        """
        name, message = key(conversation), {"message": conversation.messages[index].value}
        if name not in self._threads:
            state = self._threads[name] = Thread(thread(name))
            await self._put(state, 0, [])
        state = self._threads[name]
        writes = [(CHANNEL, [message]), (TRIGGER, None)]
        await self._saver.aput_writes(state.config, writes, str(uuid.uuid4()), f"~__pregel_pull, {NODE}")
        state.updates += 1
        await self._put(state, index + 1, [message])

    async def _put(self, state: Thread, step: int, messages: list[Any]) -> None:
        """Store the checkpoint after a step that wrote these messages."""
        state.channels[CHANNEL].update([messages])
        state.channels[TRIGGER].update([None])
        self._count_versions(state)
        metadata: Any = {"source": "loop", "step": step, "parents": {}}
        counters = {CHANNEL: (state.updates, state.updates)}
        versions = state.checkpoint["channel_versions"]
        due = delta_channels_to_snapshot(state.channels, counters, versions)
        state.checkpoint = create_checkpoint(
            state.checkpoint, state.channels, step, updated_channels={CHANNEL, TRIGGER}, channels_to_snapshot=due
        )
        if due:
            state.updates = 0
        else:
            metadata["counters_since_delta_snapshot"] = counters
        state.config = await self._saver.aput(state.config, state.checkpoint, metadata, versions)

    def _count_versions(self, state: Thread) -> None:
        """Count the channels' versions up, and note which one the node has seen."""
        seen, state.version = state.version, self._saver.get_next_version(state.version, None)
        if seen is None:
            state.checkpoint["channel_versions"] = {"__start__": state.version}
            state.checkpoint["versions_seen"] = {"__input__": {}, "__start__": {"__start__": state.version}}
        else:
            state.checkpoint["versions_seen"][NODE] = {TRIGGER: seen}
        state.checkpoint["channel_versions"] |= {CHANNEL: state.version, TRIGGER: state.version}

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Get the newest checkpoint and let LangGraph rebuild the channel."""
        found = await self._saver.aget_tuple(thread(key(conversation)))
        assert found is not None
        channels, _ = await achannels_from_checkpoint(
            {CHANNEL: _new_channel()}, found.checkpoint, saver=self._saver, config=found.config
        )
        wrapped: Sequence[Any] = channels[CHANNEL].get()
        return [one["message"] for one in wrapped]


def _new_channel() -> DeltaChannel[list[Any]]:
    channel: DeltaChannel[list[Any]] = DeltaChannel(concatenate, list)
    channel.key = CHANNEL
    return channel
