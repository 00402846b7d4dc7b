"""The same checkpointer with LangGraph's opt-in delta channel: the new message is stored, the list now and then."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.pregel._checkpoint import achannels_from_checkpoint, create_checkpoint, delta_channels_to_snapshot

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Description, key, package_versions
from benchmarks.stores.langgraph_saver import CHANNEL, LangGraphStore, thread


def concatenate(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    """Reduce as the channel wants it: the state and a batch of writes.

    Not the reducer for chat messages: that would turn dicts into message objects with ids of its own.
    """
    return state + [message for write in writes for message in write]


@dataclass
class Thread:
    """What the graph's loop keeps in memory between two steps."""

    config: RunnableConfig
    channel: DeltaChannel[list[Any]]
    checkpoint: Checkpoint
    updates: int = 0
    """Since the last stored list."""


class LangGraphDeltaStore(LangGraphStore):
    """Each step stores its writes, then a checkpoint, in the order and with the functions of the graph's loop."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, Thread] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="LangGraph, delta channel (opt-in)",
            version=package_versions("langgraph", "langgraph-checkpoint-postgres", "psycopg"),
            setup=f"the same pool of {CONNECTIONS}; DeltaChannel with its default snapshot_frequency;"
            " aput_writes and aput per message",
            keeps="every checkpoint; each message as a write, the whole list every 100 updates",
        )

    async def save(self, conversation: Conversation, index: int) -> None:
        """Store the step's write under the checkpoint before, then the step's checkpoint."""
        name, value = key(conversation), conversation.messages[index].value
        if name not in self._threads:
            self._threads[name] = await self._begin(name)
        state = self._threads[name]
        await self._saver.aput_writes(state.config, [(CHANNEL, [value])], str(uuid.uuid4()))
        state.channel.update([[value]])
        state.updates += 1
        before: Any = state.checkpoint["channel_versions"].get(CHANNEL)
        version = self._saver.get_next_version(before, None)
        state.checkpoint["channel_versions"] = {CHANNEL: version}
        await self._put(state, index, {CHANNEL: version})

    async def _begin(self, name: str) -> Thread:
        """Store the empty checkpoint that the first message's write belongs to."""
        channel = _new_channel()
        channel.update([[]])
        state = Thread(thread(name), channel, empty_checkpoint())
        await self._put(state, -1, {})
        return state

    async def _put(self, state: Thread, step: int, new_versions: dict[str, Any]) -> None:
        counters = {CHANNEL: (state.updates, state.updates)} if state.updates else {}
        channels = {CHANNEL: state.channel}
        due = delta_channels_to_snapshot(channels, counters, state.checkpoint["channel_versions"])
        state.checkpoint = create_checkpoint(
            state.checkpoint, channels, step, updated_channels={CHANNEL}, channels_to_snapshot=due
        )
        if due:
            state.updates, counters = 0, {}
        metadata: Any = {"source": "loop", "step": step, "parents": {}}
        if counters:
            metadata["counters_since_delta_snapshot"] = counters
        state.config = await self._saver.aput(state.config, state.checkpoint, metadata, new_versions)

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Get the newest checkpoint and let LangGraph rebuild the channel."""
        found = await self._saver.aget_tuple(thread(key(conversation)))
        assert found is not None
        channels, _ = await achannels_from_checkpoint(
            {CHANNEL: _new_channel()}, found.checkpoint, saver=self._saver, config=found.config
        )
        messages: Sequence[Any] = channels[CHANNEL].get()
        return messages


def _new_channel() -> DeltaChannel[list[Any]]:
    channel: DeltaChannel[list[Any]] = DeltaChannel(concatenate, list)
    channel.key = CHANNEL
    return channel
